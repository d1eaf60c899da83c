"""draw what has been run"""

from __future__ import annotations

import argparse
from pathlib import Path

from petlbench import plots
from petlbench.commands import _shared as shared
from petlbench.errors import UsageError, unknown

ORDER = 75


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=", ".join(plots.names()))
    shared.add_results(parser)
    shared.add_output(parser, ".png, .pdf or .svg by extension")


def run(options: argparse.Namespace) -> None:
    if options.kind not in plots.names():
        raise unknown("plot", options.kind, plots.names())
    from petlbench import leaderboard

    chosen = plots.candidates(options.kind, shared.comparisons(options))
    if len(chosen) > 1:
        found = [each.board for each in chosen]
        differ = "\n".join(f"  {line}" for line in leaderboard.differences(found))
        names = "\n".join(
            f"  --fingerprint {b.fingerprint}  ({leaderboard.subject(b)}; {len(b.rows)} methods)"
            for b in found
        )
        raise UsageError(
            f"{options.results} holds {len(chosen)} comparisons that must not share a plot:\n"
            f"{differ}\nChoose one:\n{names}"
        )
    output = options.output or Path(f"{options.kind.replace('-', '_')}.png")
    shared.save(lambda: plots.draw(options.kind, chosen[0], output), output)
