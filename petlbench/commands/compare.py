"""is one method better than another, and by how much for which cost"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from petlbench.compare import Many, Two
    from petlbench.results import Results

ORDER = 65
ENDINGS = {"table": ".txt", "markdown": ".md", "json": ".json"}


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "two, or more, or none for all: names as the leaderboard has them"
    add("methods", nargs="*", metavar="METHOD", help=text)
    shared.add_results(parser)
    add("--suite", help="only the comparison of this suite")
    text = "another one than the tasks' own, as in: balanced_accuracy, macro_f1, t2i_r1"
    add("--metric", metavar="M", help=text)
    text = "where methods did not finish the same tasks: only those that all did"
    add("--common-tasks", action="store_true", help=text)
    text = "take the tasks as they are: say nothing of tasks like these"
    add("--fixed-tasks", action="store_true", help=text)
    add("--format", metavar="F", help=f"{'|'.join(ENDINGS)} (default: that of FILE, or table)")
    shared.add_output(parser, "default: the screen")


def run(options: argparse.Namespace) -> None:
    form = _format(options)
    if len(options.methods) == 1:
        raise UsageError(
            f"{options.methods[0]} with what? Name a second method: petlbench compare "
            f"{options.methods[0]} METHOD. Without any, all are compared."
        )
    from petlbench import compare
    from petlbench.commands import _pages as pages

    chosen = _results(options)
    how = {"common_tasks": options.common_tasks, "fixed_tasks": options.fixed_tasks}
    found: Two | Many
    if len(options.methods) == 2:
        found = compare.two(chosen, *options.methods, **how)
        page = pages.of_two(found)
    else:
        found = compare.many(chosen, options.methods or None, **how)
        page = pages.of_many(found)
    if form == "json":
        told = {**asdict(found), "conclusion": found.conclusion}
        shared.output(json.dumps(told, indent=2, allow_nan=False), options.output)
    elif form == "markdown":
        shared.output(pages.markdown(page), options.output)
    elif options.output:
        shared.output(pages.text(page), options.output)
    else:
        pages.show(page, shared.console())


def _format(options: argparse.Namespace) -> str:
    """The one that was asked for; else that of the file's ending; else a table."""
    of_ending = {ending: form for form, ending in ENDINGS.items()}
    if options.format and options.format not in ENDINGS:
        raise unknown("format", options.format, ENDINGS)
    if not options.output:
        return options.format or "table"
    allowed = [ENDINGS[options.format]] if options.format else list(of_ending)
    if options.output.suffix not in allowed:
        raise UsageError(f"{options.output}: end it in {' or '.join(allowed)}.")
    return of_ending[options.output.suffix]


def _results(options: argparse.Namespace) -> Results:
    found = shared.comparisons(options)
    suites = sorted({each.board.suite for each in found})
    if options.suite and options.suite not in suites:
        raise unknown("suite", options.suite, suites, f"(With results in {options.results}.)")
    found = [each for each in found if options.suite in (None, each.board.suite)]
    return shared.only(found, options, "a comparison")
