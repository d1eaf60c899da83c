"""draw what has been run"""

from __future__ import annotations

import argparse
from pathlib import Path

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError, unknown

ORDER = 75
PLOTS = (
    "params-vs-accuracy",
    "accuracy-vs-shots",
    "accuracy-vs-trials",
    "default-vs-tuned",
    "peek-gap",
)


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=", ".join(PLOTS))
    shared.add_results(parser)
    shared.add_output(parser, ".png, .pdf or .svg by extension")


def run(options: argparse.Namespace) -> None:
    if options.kind not in PLOTS:
        raise unknown("plot", options.kind, PLOTS)
    from petlbench import api, leaderboard, plot

    records = api.finished(options.results)
    chosen = plot.candidates(options.kind, shared.boards(options), records)
    if len(chosen) > 1:
        differ = "\n".join(f"  {line}" for line in leaderboard.differences(chosen))
        names = "\n".join(
            f"  --fingerprint {b.fingerprint}  ({leaderboard.subject(b)}; {len(b.rows)} methods)"
            for b in chosen
        )
        raise UsageError(
            f"{options.results} holds {len(chosen)} comparisons that must not share a plot:\n"
            f"{differ}\nChoose one:\n{names}"
        )
    output = options.output or Path(f"{options.kind.replace('-', '_')}.png")
    shared.save(lambda: plot.draw(options.kind, chosen[0], records, output), output)
