"""draw what has been run"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from petlbench import plots
from petlbench.commands import _shared as shared
from petlbench.errors import UsageError, unknown

ORDER = 75


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", help=", ".join(plots.names()))
    shared.add_results(parser)
    text = "screen (default), or for print: paper (a column, 3.3 in), paper-wide (a page, 6.9 in)"
    parser.add_argument("--style", default="screen", help=text)
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="X=Y",
        help="what the kind lets you choose: x=peak-memory, baseline=lora",
    )
    shared.add_output(parser, ".png, .pdf or .svg by extension")


def run(options: argparse.Namespace) -> None:
    if options.kind not in plots.names():
        raise unknown("plot", options.kind, plots.names())
    from petlbench.statistics.judge import judge

    choices = _choices(options)
    found = plots.candidates(options.kind, shared.comparisons(options))
    chosen = judge(shared.only(found, options, "a plot"))
    output = options.output or Path(f"{options.kind.replace('-', '_')}.png")
    shared.save(
        lambda: plots.draw(options.kind, chosen, output, style=options.style, **choices), output
    )


def _choices(options: argparse.Namespace) -> dict[str, Any]:
    """Of --set; a name that the figure does not know is refused when it is drawn."""
    known, found = plots.options(options.kind), {}
    for text in options.set:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"--set {text}: write it as NAME=VALUE, as in --set x=peak-memory")
        try:
            found[name] = int(value) if isinstance(known.get(name), int) else value
        except ValueError:
            raise UsageError(f"--set {text}: {value!r} is not a whole number.") from None
    return found
