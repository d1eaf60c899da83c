"""`petlbench plan --resolve`: which seeds to run next, in words."""

from __future__ import annotations

import argparse
import math
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError
from petlbench.wording import count

if TYPE_CHECKING:
    from petlbench.leaderboard import Row
    from petlbench.plan import Plan
    from petlbench.resolve import Resolution
    from petlbench.results import Results
    from petlbench.statistics.resolve import Pair

_OWN = ("--resolve", "--hours", "--fresh", "--seeds")  # not of `run`
_FLAGS = ("--resolve", "--fresh", "--recompute", "--compile", "--report-peek")


def run(options: argparse.Namespace) -> None:
    from petlbench.resolve import resolve

    plan = shared.make_plan(options)
    results = _results(plan)
    rows = _rows(results, plan)
    with shared.status("resampling, for what can be told apart"):
        found = resolve(results, rows, math.inf if options.hours is None else options.hours)
    _print_ties(found)
    shared.say(*_advice(found, plan, options))


def _results(plan: Plan) -> Results:
    """What is recorded of the plan's comparison."""
    from petlbench import results

    records, problems = plan.store.load()
    shared.warn(problems)
    here = plan.specs[0].fingerprint
    found = results.comparisons([r for r in records if r["fingerprint"] == here], plan.store)
    if not found:
        raise UsageError(
            f"nothing of this comparison is recorded in {plan.store.folder}: run it first "
            "(petlbench run with the same arguments), then ask which seeds to add."
        )
    return found[0]


def _rows(results: Results, plan: Plan) -> list[Row]:
    """The ranked rows of the plan. Refuses what has no ties to settle."""
    asked = {spec.task for spec in plan.specs}
    recorded = {record["spec"]["task"] for record in results.records.values()}
    if left_out := sorted(recorded - asked):
        raise UsageError(
            f"this comparison ranks by {len(recorded)} tasks, and --tasks leaves out "
            f"{', '.join(left_out)}: seeds on some tasks alone would settle nothing. Leave out "
            "--tasks."
        )
    planned = {(spec.method.label, spec.method.source) for spec in plan.specs}
    ranked = []
    for row in results.board.rows:
        if row.rank:
            method = results.of(row)[0]["spec"]["method"]
            if (method["label"], method["source"]) in planned:
                ranked.append(row)
    if len(ranked) < 2:
        names = ", ".join(row.method for row in ranked) or "none"
        raise UsageError(
            f"ties are between two ranked methods, and of these methods {names} is ranked: "
            "finish them first (petlbench run with the same arguments)."
        )
    return ranked


def _print_ties(found: Resolution) -> None:
    from rich.markup import escape
    from rich.table import Table

    if not found.proposal.pairs:
        return
    table = Table(title="ties: differences in points of what ranks", title_justify="left")
    for header in ("better", "worse"):
        table.add_column(header)
    for header in ("difference", "told from", "with endless seeds from"):
        table.add_column(header, justify="right")
    table.add_column("more seeds")
    for pair in found.proposal.pairs:
        names = (found.rows[m].method for m in (pair.better, pair.worse))
        points = (pair.difference, pair.least, pair.least_ever)
        table.add_row(*map(escape, names), *map(_points, points), _verdict(pair, found))
    shared.console().print(table)


def _points(difference: float) -> str:
    return "?" if math.isnan(difference) else f"{100 * difference:.2f}"


def _verdict(pair: Pair, found: Resolution) -> str:
    """What more seeds do for this pair."""
    from petlbench.benchmark import duration
    from petlbench.statistics.resolve import LIMIT, PILOT, POWER

    if math.isnan(pair.needed):
        return f"{PILOT} seeds first, to learn how noisy they are"
    if pair.chance >= POWER:
        both = (pair.better, pair.worse)
        seeds = " and ".join(str(found.proposal.seeds[m]) for m in both)
        hours = sum(found.more(m) * found.hours[m] for m in both)
        return f"{seeds} seeds settle it ({pair.chance:.0%}): {duration(3600 * hours)}"
    if pair.needed <= LIMIT:
        return f"takes {count(int(pair.needed), 'seed')} of each: left out"
    if math.isfinite(pair.needed):
        return f"would take about {pair.needed:.0f} seeds of each, more than {LIMIT}"
    return "no seeds can at this difference: test examples hide it"


def _advice(found: Resolution, plan: Plan, options: argparse.Namespace) -> Iterator[str]:
    """What was found, what is proposed, and the commands."""
    from petlbench.benchmark import duration
    from petlbench.statistics.resolve import LIMIT, PILOT, POWER

    proposal = found.proposal
    if single := [row.method for row in found.rows if len(row.seeds) == 1]:
        yield (
            f"One seed of {', '.join(single)}: what tells others from it are test examples alone; "
            "how noisy seeds are is unknown."
        )
    pairs = math.comb(len(found.rows), 2)
    if not proposal.pairs:
        if not single:
            yield f"{pairs} of {pairs} pairs can be told apart on these tasks: nothing to add."
            return
        again = [
            word for o, v in _given(options.arguments) if o not in _OWN for word in (o, v) if word
        ]
        yield f"{PILOT} seeds may part fewer methods than one does: run these first."
        yield f"next: {shlex.join(['petlbench', 'run', *again, '--seeds', str(PILOT)])}"
        return
    yield f"{len(proposal.pairs)} of {pairs} pairs cannot be told apart on these tasks."
    if found.without_predictions:
        yield (
            f"Predictions are not kept of {', '.join(found.without_predictions)}: with them "
            "(--keep predictions) smaller differences could be told, without any seed."
        )
    if any(math.isinf(pair.needed) for pair in proposal.pairs):
        yield (
            "Where no seeds can, the test examples alone hide a difference of that size: only "
            "more test examples, or more tasks, can tell."
        )
    if options.hours is not None and any(
        pair.chance < POWER and pair.needed <= LIMIT for pair in proposal.pairs
    ):
        yield f"What is left out takes more than {options.hours:g} hours together with the rest."
    if not proposal.hours:
        yield "no seeds are proposed."
        return
    listed = ", ".join(
        f"{row.method} {len(row.seeds)} -> {proposal.seeds[m]} "
        f"({duration(3600 * found.more(m) * found.hours[m])})"
        for m, row in enumerate(found.rows)
        if found.more(m)
    )
    yield f"proposed seeds: {listed}; {duration(3600 * proposal.hours)} in all, one run at a time"
    yield (
        f"They settle a pair with a probability of {POWER:.0%} or more, if its difference and the "
        "noise of seeds are what they seem now. Stop there: seeds added until two methods part "
        "make equal ones part too."
    )
    yield from (f"next: {command}" for command in _commands(found, plan, options))


def _commands(found: Resolution, plan: Plan, options: argparse.Namespace) -> list[str]:
    """One for each number of seeds; where a file holds settings, one for all methods in it."""
    by_seeds: dict[int, list[str]] = {}
    for m, name in enumerate(found.methods):
        if found.more(m):
            by_seeds.setdefault(found.proposal.seeds[m], []).append(name)
    together = bool(options.plan or options.presets)
    if together:
        by_seeds = {max(by_seeds): []}
    typed = {Path(each).stem: each for each in plan.request.methods or () if isinstance(each, str)}
    commands = []
    for seeds, names in sorted(by_seeds.items()):
        words = ["petlbench", "run"]
        for option, value in _given(options.arguments):
            owner = (value or "").partition(".")[0]
            of_others = option == "--set" and owner not in ("protocol", *names)
            if option in _OWN or (not together and (option == "--methods" or of_others)):
                continue
            words += [option] if value is None else [option, value]
        if not together:
            words += ["--methods", ",".join(typed.get(name, name) for name in names)]
        told = "    (all methods, which takes longer)" if together else ""
        commands.append(shlex.join([*words, "--seeds", str(seeds)]) + told)
    return commands


def _given(arguments: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """The options of a command line that was understood, each with its value."""
    words = iter(arguments[1:])
    for word in words:
        option, equals, value = word.partition("=")
        yield option, None if option in _FLAGS else value if equals else next(words)
