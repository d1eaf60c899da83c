"""how fast this machine is, and what that means in hours for each suite"""

from __future__ import annotations

import argparse

from petlbench.commands import _shared as shared

ORDER = 30


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_request(parser, "every suite")
    shared.add_fresh(parser)


def run(options: argparse.Namespace) -> None:
    from rich.markup import escape
    from rich.table import Table

    from petlbench import benchmark
    from petlbench.task import load_suite, suites

    console = shared.console()
    declared = [name for name in suites() if load_suite(name).tasks]
    for name in [options.suite] if options.suite or options.plan else declared:
        options.suite = name
        plan = shared.make_plan(options, sketch=True)
        with shared.status(f"measuring {plan.specs[0].backbone.name}, a few seconds per method"):
            measured = benchmark.measure(plan, options.fresh)
        shared.say(*measured.subject)
        table = Table()
        for i, column in enumerate(benchmark.COLUMNS):
            table.add_column(column, justify="right" if i else "left")
        for row in measured.rows:
            table.add_row(*map(escape, row.cells()))
        console.print(table)
    shared.say(benchmark.EXPLAINED)
