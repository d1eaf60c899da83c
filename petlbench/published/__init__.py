"""Numbers that papers printed, with their source and how they were made; never ranked with ours.

    published.csv      one number a line, in percent, by petlbench's names of methods and tasks
    experiments.csv    what numbers that were made alike share: source, table and protocol tags
    README.md          the columns, and every change to what the sources print

What is not known is "unknown": nothing was filled in by likelihood.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from petlbench.errors import UsageError, unknown

if TYPE_CHECKING:
    import pandas as pd

# How numbers were made, as columns of experiments.csv.
TAGS = (
    *("normalisation", "checkpoint", "selection", "image_source"),
    *("mean", "tuning", "epochs", "seeds"),
)
MEANS = ("mean of groups", "mean of tasks")
RECALLS = tuple(f"{way}_r{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))

_SEE = "See: petlbench published"

Scores = Mapping[tuple[str, str], float]  # (task, metric) -> percent


def load() -> pd.DataFrame:
    """Every number with what its experiment says of it; one row each (columns: README.md).

    `percent` and `params_millions` are floats (NaN where no parameters are printed), all else text.
    """
    import pandas as pd

    folder = resources.files("petlbench.published")
    numbers, experiments = (
        pd.read_csv((folder / name).open(encoding="utf-8"), dtype=str, keep_default_na=False)
        for name in ("published.csv", "experiments.csv")
    )
    experiments = experiments.rename(columns={"note": "experiment_note"})
    frame = numbers.merge(experiments, on="experiment", validate="many_to_one")
    frame["percent"] = frame["percent"].astype(float)
    frame["params_millions"] = pd.to_numeric(frame["params_millions"])
    return frame


def select(
    suite: str | None = None,
    method: str | None = None,
    task: str | None = None,
    source: str | None = None,
) -> pd.DataFrame:
    """The numbers of these, all by default.

    `method` is petlbench's name, or the paper's (lora finds what is printed as LoRA); `task` may
    be an alias; `source` is the source's id (arXiv:2207.07039) or short name (convpass).

    Raises:
        UsageError: One of them is not known, or there is no number that has them all.
    """
    frame = load()
    chosen = frame["percent"].notna()
    if suite is not None:
        chosen &= _known("suite", suite, frame["suite"])
    if method is not None:
        chosen &= _known("method", _slug(method), frame["method"], frame["label"].map(_slug))
    if task is not None:
        chosen &= _known("task", _aliases(suite).get(task, task), frame["task"])
    if source is not None:
        known = frame["experiment"].str.partition("/")[0], frame["source_id"]
        chosen &= _known("source", source, *known)
    if not chosen.any():
        asked = " and ".join(
            f"{kind} {name}"
            for kind, name in zip(
                ("suite", "method", "task", "source"), (suite, method, task, source), strict=True
            )
            if name is not None
        )
        elsewhere = ""
        if method is not None:
            there = _known("method", _slug(method), frame["method"], frame["label"].map(_slug))
            elsewhere = f" {method} is published in: {', '.join(frame['suite'][there].unique())}."
        raise UsageError(f"no published number has {asked}.{elsewhere} {_SEE}")
    return frame[chosen].reset_index(drop=True)


def _known(kind: str, name: str, *columns: pd.Series[str]) -> pd.Series[bool]:
    """Which rows have `name` in one of the columns; an unknown name is refused."""
    found = columns[0].eq(name)
    for column in columns[1:]:
        found |= column.eq(name)
    if not found.any():
        raise unknown(f"{kind} of published numbers", name, set(columns[0]), _SEE)
    return found


def _slug(label: str) -> str:
    """As methods are called here: VPT-deep is vpt_deep."""
    return label.lower().replace("-", "_").replace(" ", "_")


def _aliases(suite: str | None) -> dict[str, str]:
    """Other names of tasks -> the one used here."""
    from petlbench.task import load_suite, suites

    some = [suite] if suite in suites() else [] if suite else suites()
    tasks = [task for name in some for task in load_suite(name).tasks]
    return {alias: task.name for task in tasks for alias in task.aliases}


def groups(suite: str) -> dict[str, tuple[str, ...]]:
    """Group -> its tasks, in the suite's order; nothing for a suite that is not petlbench's."""
    from petlbench.task import load_suite, suites

    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for task in load_suite(suite).tasks if suite in suites() else ():
        found[task.group] += (task.name,)
        for target in task.targets:
            found[target.group] += (target.name,)
    return dict(found)


def recompute(name: str, metric: str, scores: Scores, groups: Mapping[str, Iterable[str]]) -> float:
    """A mean from its parts in percent; NaN where one of them is not there.

    `name` is one of MEANS or a group; of a mean recall, a task. The mean of tasks is that of every
    task in `scores`; the mean of groups falls back on the groups' own means.
    """

    def mean(values: list[float]) -> float:
        return math.fsum(values) / len(values) if values else math.nan

    def of(tasks: Iterable[str]) -> float:
        return mean([scores.get((task, metric), math.nan) for task in tasks])

    if metric == "mean_recall":
        return mean([scores.get((name, recall), math.nan) for recall in RECALLS])
    if name == "mean of groups":
        found = mean([of(tasks) for tasks in groups.values()])
        return of(groups) if math.isnan(found) else found
    if name == "mean of tasks":
        tasks = {task for task, other in scores if other == metric} - {*MEANS, *groups}
        return of(tasks)
    return of(groups.get(name, ()))


@dataclass(frozen=True)
class Mismatch:
    """A printed mean that does not follow from the printed parts; numbers in percent."""

    source: str
    table: str
    label: str
    suite: str
    mean: str  # which: one of MEANS, a group, or the task of a mean recall
    printed: float
    recomputed: float
    explained: bool  # whether rounding of the parts can be the reason

    @property
    def gap(self) -> float:
        return self.printed - self.recomputed


def mismatches(corrected: bool = False) -> list[Mismatch]:
    """Every printed mean that differs from the mean of its parts by more than its own rounding.

    Parts are those of the same method in the same table or, where that has none, in another table
    of the same source. `corrected`: after the errata of README.md, not as printed.
    """
    found = []
    for tables in _by_row(corrected).values():
        for table, own in tables.items():
            means = [r for r in own if r["kind"] != "task" or r["metric"] == "mean_recall"]
            half = _rounding(means)
            others = [rows for name, rows in tables.items() if name != table]
            for row in means:
                for rows in (own, *others):
                    parts = [part for part in rows if part is not row]
                    scores = {(part["task"], part["metric"]): part["value"] for part in parts}
                    mean = recompute(row["task"], row["metric"], scores, groups(row["suite"]))
                    if not math.isnan(mean):
                        gap = abs(row["value"] - mean) - 1e-9
                        if gap > half:
                            place = row["source"], table, row["label"], row["suite"], row["task"]
                            explained = gap <= half + _rounding(parts)
                            found.append(Mismatch(*place, row["value"], mean, explained))
                        break
    return found


def _by_row(corrected: bool) -> dict[tuple[str, ...], dict[str, list[dict[str, Any]]]]:
    """Table -> the numbers there, for each method of each source; `value` is what is compared."""
    found: defaultdict[tuple[str, ...], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    whose = ["suite", "source", "backbone", "pretraining", "label"]
    whose += ["method"] if corrected else []
    frame = load()
    frame["value"] = frame["percent"] if corrected else frame["printed"].astype(float)
    for each in frame.to_dict("records"):
        row = {str(name): value for name, value in each.items()}
        found[tuple(row[name] for name in whose)].setdefault(row["table"], []).append(row)
    return found


def _rounding(rows: Iterable[Mapping[str, Any]]) -> float:
    """Half a unit of the last digit that is printed."""
    digits = max((len(row["printed"].partition(".")[2]) for row in rows), default=0)
    return float(0.5 * 10.0**-digits)
