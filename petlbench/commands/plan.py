"""show what `run` with the same arguments would do, and how long it would take"""

from __future__ import annotations

import argparse
import math
from collections import Counter

from petlbench.commands import _resolve
from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

ORDER = 20


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_request(parser)
    shared.add_fresh(parser)
    text = "of a comparison with results: which seeds to add, to tell tied methods apart"
    parser.add_argument("--resolve", action="store_true", help=text)
    text = "with --resolve: propose at most so many hours of runs"
    parser.add_argument("--hours", type=_positive, metavar="H", help=text)


def run(options: argparse.Namespace) -> None:
    if options.hours is not None and not options.resolve:
        raise UsageError("--hours is for petlbench plan --resolve.")
    if options.resolve:
        _resolve.run(options)
    else:
        _show(options)


def _positive(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = math.nan
    if not hours > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of hours above 0")
    return hours


def _show(options: argparse.Namespace) -> None:
    from rich.markup import escape
    from rich.table import Table

    plan = shared.make_plan(options)
    shared.print_plan(plan, measure=True, fresh=options.fresh)
    every, todo = (
        Counter((spec.method.label, spec.task) for spec in specs)
        for specs in (plan.specs, plan.todo)
    )
    tasks = list(dict.fromkeys(spec.task for spec in plan.specs))
    table = Table(title="runs done / all", title_justify="left")
    for column in ("method", *tasks):
        table.add_column(column)
    for label in dict.fromkeys(spec.method.label for spec in plan.specs):
        runs = [(label, task) for task in tasks]
        table.add_row(escape(label), *(f"{every[r] - todo[r]} / {every[r]}" for r in runs))
    shared.console().print(table)
