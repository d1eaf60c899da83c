"""is one method better than another, and by how much for which cost"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

if TYPE_CHECKING:
    from petlbench.compare import Many, Two

ORDER = 65
ENDINGS = {"table": ".txt", "markdown": ".md", "json": ".json"}


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "two, or more, or none for all: names as the leaderboard has them"
    add("methods", nargs="*", metavar="METHOD", help=text)
    shared.add_results(parser)
    shared.add_metric(parser)
    text = "where methods did not finish the same tasks: only those that all did"
    add("--common-tasks", action="store_true", help=text)
    text = "take the tasks as they are: say nothing of tasks like these"
    add("--fixed-tasks", action="store_true", help=text)
    shared.add_format(parser, ENDINGS)


def run(options: argparse.Namespace) -> None:
    form = shared.chosen_format(options, ENDINGS)
    if len(options.methods) == 1:
        raise UsageError(
            f"{options.methods[0]} with what? Name a second method: petlbench compare "
            f"{options.methods[0]} METHOD. Without any, all are compared."
        )
    from petlbench import compare
    from petlbench.commands import _pages as pages

    chosen = shared.only(shared.comparisons(options), options, "a table")
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
