"""rank what has been run"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from petlbench import efficiency, formats
from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

if TYPE_CHECKING:
    from petlbench.leaderboard import Leaderboard
    from petlbench.results import Results

ORDER = 60


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_results(parser)
    shared.add_metric(parser)
    text = "a column: bytes that serve N tasks, the backbone once and a task's own N times"
    parser.add_argument("--tasks-served", type=shared.whole, metavar="N", help=text)
    text = f"columns: scores that charge for costs, never the rank: {', '.join(efficiency.names())}"
    parser.add_argument("--efficiency", type=shared.names, default=[], metavar="A,B", help=text)
    text = "rank groups about tasks like these, of which these are a sample (default: about these)"
    parser.add_argument("--over-tasks", action="store_true", help=text)
    text = "below the board, what papers report of its methods: never in one ranking"
    parser.add_argument("--published", action="store_true", help=text)
    shared.add_format(parser, formats.names())


def run(options: argparse.Namespace) -> None:
    form = shared.chosen_format(options, formats.extensions())
    if options.tasks_served is not None and options.tasks_served < 1:
        raise UsageError(f"--tasks-served {options.tasks_served}: it takes at least one task.")
    if options.published and form not in ("table", "markdown"):
        raise UsageError(
            f"--published goes with the table and with markdown; as {form}: petlbench published"
        )
    from petlbench.published import block
    from petlbench.statistics.judge import judge

    found = [
        judge(replace(each, board=_asked(each.board, options)), options.over_tasks)
        for each in shared.comparisons(options)
    ]
    if form == "table" and not options.output:
        from petlbench.formats import table

        console = shared.console()
        table.show([each.board for each in found], console)
        if options.published:
            for suite, methods in _methods(found).items():
                block.to_table(suite, methods, console)
        return
    text = formats.write(found, form)
    for each in _methods(found).items() if options.published else ():
        below = block.to_markdown(*each) if form == "markdown" else block.text(block.beside(*each))
        text += f"\n{below}"
    shared.output(text, options.output)


def _methods(found: Sequence[Results]) -> dict[str, list[str]]:
    """Suite -> the methods of its boards."""
    methods: dict[str, list[str]] = {}
    for board in (each.board for each in found):
        methods.setdefault(board.suite, []).extend(row.method for row in board.rows)
    return methods


def _asked(board: Leaderboard, options: argparse.Namespace) -> Leaderboard:
    """With the columns that were asked for."""
    from petlbench import leaderboard

    if options.tasks_served:
        board = leaderboard.serve(board, options.tasks_served)
    return efficiency.add(board, options.efficiency)
