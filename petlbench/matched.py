"""Methods at one budget: what each of them has at so many parameters, bytes or seconds."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from petlbench import wording
from petlbench.errors import UsageError, unknown
from petlbench.formats import _text
from petlbench.leaderboard import Row, compact

if TYPE_CHECKING:
    from petlbench.results import Results
    from petlbench.statistics.bootstrap import Bootstrap


@dataclass(frozen=True)
class Cost:
    """What a budget is of: a field of a row, how amounts of it are typed, and how printed."""

    name: str
    field: str
    units: Mapping[str, float]
    example: str
    text: Callable[[Any], str]
    is_measured: bool  # and so varies between repetitions

    def parse(self, typed: str) -> float:
        """Of "300K", "2GB", "60s".

        Raises:
            UsageError: It is no amount of this, or not above 0.
        """
        number, unit = re.fullmatch(r"\s*(.*?)\s*([A-Za-z]*)\s*", typed).groups()  # type: ignore[union-attr]
        units = {name.lower(): size for name, size in self.units.items()}
        try:
            amount = float(number) * units[unit.lower()]
        except (ValueError, KeyError):
            known = ", ".join(name or "no unit" for name in self.units)
            raise UsageError(
                f"{typed!r} is no amount of {self.name}: type a number and its unit ({known}), as "
                f"in {self.example}."
            ) from None
        if not 0 < amount < math.inf:
            raise UsageError(
                f"{typed!r}: a budget of {self.name} is above 0, as in {self.example}."
            )
        return amount


PARAMETERS = Cost(
    "trainable parameters",
    "trainable_parameters",
    {"": 1, "K": 1e3, "M": 1e6, "B": 1e9},
    "300K",
    lambda count: compact(round(count)),
    is_measured=False,
)
MEMORY = Cost(
    "peak memory",
    "peak_bytes",
    {"MB": 1e6, "GB": 1e9, "MiB": 2**20, "GiB": 2**30},
    "2GB",
    lambda count: _text.size(round(count)),
    is_measured=True,
)
TIME = Cost(
    "training time",
    "train_seconds",
    {"s": 1, "min": 60, "h": 3600},
    "60s",
    _text.duration,
    is_measured=True,
)


@dataclass(frozen=True)
class Point:
    """A method at the budget. Scores are fractions."""

    method: str
    score: float
    low: float  # of the 95% interval
    high: float
    letters: str  # points that share one cannot be told apart
    settings: tuple[tuple[str, float, float], ...]  # (row, its cost, how much it counts)


@dataclass(frozen=True)
class Matched:
    """Points, the best first, and why other methods have none."""

    cost: Cost
    budget: float
    points: tuple[Point, ...]
    refused: Mapping[str, str]  # method -> reason
    notes: tuple[str, ...]


def match(
    results: Results, cost: Cost, budget: float, methods: Sequence[str] | None = None
) -> Matched:
    """What every method has at the budget, by its settings around it; nothing is extrapolated.

    The ranked rows of one method, apart in settings alone, are its curve (a preset's are one of
    its own): what ranks against log10 of the cost, linear between neighbours. Intervals and groups
    of equals come from resamples of the scores, interpolated just so; costs count as exact.

    Args:
        methods: Names of methods, which stand for all of their rows, or of rows; None for all.

    Raises:
        UsageError: No method has anything at this budget, or a name is unknown.
    """
    import numpy as np

    from petlbench.statistics import panel as panels
    from petlbench.statistics import ties
    from petlbench.statistics.bootstrap import Bootstrap, percentiles

    curves = _chosen(_curves(results), methods)
    at, refused = _at(curves, cost, budget)
    if not at:
        raise UsageError(_nobody(cost, budget, refused, _settable(results, curves)))
    panel = panels.of(results, [row for shares in at.values() for row in shares])
    mix = np.zeros((len(panel.methods), len(at)))
    for column, shares in enumerate(at.values()):
        for row, share in shares.items():
            mix[panel.methods.index(row), column] = share
    boot = Bootstrap(panel)
    values = panel.mean(panel.ranking) @ mix
    draws = boot.draws(panel.ranking, of=mix.T)
    order = np.argsort(-values, kind="stable")
    names = list(at)
    costs = {row.method: getattr(row, cost.field) for rows in curves.values() for row in rows}
    apart = ties.apart(boot, panel.ranking, of=mix.T[order])
    letters = ties.letters(apart) if len(at) > 1 else [""]
    low, high = panel.clip(percentiles(draws))
    points = tuple(
        Point(
            method=names[m],
            score=float(values[m]),
            low=float(low[m]),
            high=float(high[m]),
            letters=letter,
            settings=tuple((row, costs[row], share) for row, share in at[names[m]].items()),
        )
        for m, letter in zip(order.tolist(), letters, strict=True)
    )
    notes = _notes(cost, boot, results.board.metric, len(at))
    if unknown_cost := [row for row, amount in costs.items() if amount is None]:
        notes.insert(0, f"{cost.name.capitalize()} was not measured of {', '.join(unknown_cost)}.")
    return Matched(cost, budget, points, refused, tuple(notes))


def _at(
    curves: Mapping[str, Sequence[Row]], cost: Cost, budget: float
) -> tuple[dict[str, dict[str, float]], dict[str, str]]:
    """Method -> row -> how much it counts at the budget; and method -> why it has nothing there."""
    import numpy as np

    from petlbench.statistics import matched

    at, refused = {}, {}
    for name, rows in curves.items():
        costs = {row.method: float(c) for row in rows if (c := getattr(row, cost.field))}
        if not costs:
            refused[name] = _without_cost(rows, cost)
            continue
        try:
            counts = matched.weights(np.array(list(costs.values())), budget)
        except matched.Outside as outside:
            refused[name] = _outside(outside.low, outside.high, cost)
        except matched.Ambiguous as ambiguous:
            listed = " and ".join(list(costs)[i] for i in ambiguous.settings)
            refused[name] = (
                f"{listed} cost the same there (within {matched.SAME:.0%}); choosing between them "
                "by this table would be tuning on the test set: name one in --methods, where "
                f"{name}() is the plain one"
            )
        else:
            used = {row: float(c) for row, c in zip(costs, counts, strict=True) if c > 0}
            at[name] = {row: used[row] for row in sorted(used, key=costs.__getitem__)}
    return at, refused


def _curves(results: Results) -> dict[str, list[Row]]:
    """Method -> its ranked rows; one of several versions or presets is a method of its own."""
    found: dict[tuple[str, str | None], list[Row]] = {}
    for row in results.board.rows:
        if row.rank:
            spec = results.of(row)[0]["spec"]["method"]
            found.setdefault((spec["label"].partition("(")[0], spec["source"]), []).append(row)
    if not found:
        raise UsageError(
            "no row of this comparison is complete, so none is ranked and has a place at a budget: "
            "finish it first (petlbench run, with the same arguments)."
        )
    names = [name for name, _ in found]
    return {
        f"{name}@{source[:6]}" if source and names.count(name) > 1 else name: rows
        for (name, source), rows in found.items()
    }


def _chosen(curves: dict[str, list[Row]], asked: Sequence[str] | None) -> dict[str, list[Row]]:
    """Those of the names asked for; the row that is called as its method is typed with "()"."""
    if asked is None:
        return curves
    by_name = {name: [(name, row) for row in rows] for name, rows in curves.items()}
    for name, rows in curves.items():
        by_name |= {f"{name}()" if r.method == name else r.method: [(name, r)] for r in rows}
    found: dict[str, dict[str, Row]] = {}
    for each in asked:
        if each not in by_name:
            raise unknown("method", each, by_name, "(Only ranked rows have a place here.)")
        for name, row in by_name[each]:
            found.setdefault(name, {})[row.method] = row
    return {name: list(rows.values()) for name, rows in found.items()}


def _without_cost(rows: Sequence[Row], cost: Cost) -> str:
    if any(getattr(row, cost.field) == 0 for row in rows):
        return f"has no {cost.name}"
    return f"{cost.name} was not measured"


def _outside(low: float, high: float, cost: Cost) -> str:
    if low == high:
        return f"measured at {cost.text(low)} only"
    return f"measured from {cost.text(low)} to {cost.text(high)}"


def _settable(results: Results, curves: Mapping[str, Sequence[Row]]) -> tuple[str, str] | None:
    """A method that has settings, and the first of them."""
    for row in (row for rows in curves.values() for row in rows):
        method = results.of(row)[0]["spec"]["method"]
        if method["config"]:
            return method["name"], next(iter(method["config"]))
    return None


def _nobody(
    cost: Cost, budget: float, refused: Mapping[str, str], settable: tuple[str, str] | None
) -> str:
    """`settable`: a method and a setting of it to vary."""
    listed = "\n".join(f"  {name}: {reason}" for name, reason in refused.items())
    how = "a method that has some: petlbench list methods"
    if settable:
        name, setting = settable
        how = f"petlbench run --methods {name} --set {name}.{setting}=VALUE"
    return (
        f"no method has settings around {cost.text(budget)} of {cost.name}, and nothing is "
        f"extrapolated:\n{listed}\nMeasure settings on both sides of it, as in: {how}"
    )


def _notes(cost: Cost, boot: Bootstrap, metric: str, methods: int) -> list[str]:
    """What the numbers are, and what they are not."""
    from petlbench.statistics.matched import SAME

    panel = boot.panel
    levels = "seeds and test examples" if len(panel.seeds) > 1 else "test examples"
    notes = [
        f"Test score: {wording.metric(metric)}, {panel.ranking}, linear in log10({cost.name}) "
        "between the two settings around the budget, or that of a setting within "
        f"{SAME:.0%} of it; nothing is extrapolated.",
        f"Intervals: 95%, by a bootstrap over {levels} of these tasks ({boot.count:,} resamples).",
    ]
    if methods > 1:
        notes.append(
            "Rank groups: methods that share a letter cannot be told apart at this budget (95% "
            "for all pairs at once)."
        )
    notes += boot.caveats()
    if cost.is_measured:
        notes.append(f"{cost.name.capitalize()} varies from run to run; it is taken as exact.")
    notes.append("To choose settings by this table would be tuning on the test set.")
    return notes
