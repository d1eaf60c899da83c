"""draw what has been run"""

from __future__ import annotations

import argparse
from pathlib import Path

from petlbench import plots
from petlbench.commands import _shared as shared
from petlbench.errors import unknown

ORDER = 75


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=", ".join(plots.names()))
    shared.add_results(parser)
    shared.add_output(parser, ".png, .pdf or .svg by extension")


def run(options: argparse.Namespace) -> None:
    if options.kind not in plots.names():
        raise unknown("plot", options.kind, plots.names())
    chosen = plots.candidates(options.kind, shared.comparisons(options))
    found = shared.only(chosen, options, "a plot")
    output = options.output or Path(f"{options.kind.replace('-', '_')}.png")
    shared.save(lambda: plots.draw(options.kind, found, output), output)
