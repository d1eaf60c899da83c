"""join the results of several machines or people"""

from __future__ import annotations

import argparse
from pathlib import Path

from petlbench.commands import _shared as shared

ORDER = 85
INTERRUPTED = "What was copied is whole; the same command goes on."


def add(parser: argparse.ArgumentParser) -> None:
    text = "a results folder, a folder of such folders, or a file of records, one on a line"
    parser.add_argument("sources", nargs="+", type=Path, metavar="DIR", help=text)
    text = "the results folder that gets everything; it may have results already"
    parser.add_argument("--into", required=True, type=Path, metavar="DIR", help=text)


def run(options: argparse.Namespace) -> None:
    from petlbench.merge import merge

    with shared.bars() as show:
        merged = merge(options.sources, options.into, show)
    shared.warn(merged.problems)
    shared.say(
        f"{options.into}: {merged.finished} finished runs, {merged.failed} failed, "
        f"{merged.trials} trials, {merged.artifacts} files of predictions and weights; "
        f"{merged.new} of these are new",
        f"see: petlbench leaderboard --results {options.into}",
    )
