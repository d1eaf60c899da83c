"""draw what has been run"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from petlbench import plots
from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

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
        help="what the kind lets you choose: x=peak-memory, baseline=lora, over_tasks=true",
    )
    shared.add_output(parser, ".png, .pdf or .svg by extension")


def run(options: argparse.Namespace) -> None:
    from petlbench.statistics.judge import judge

    output = options.output or Path(f"{options.kind.replace('-', '_')}.png")
    choices = _choices(options)
    plots.check(options.kind, output, options.style, choices)
    found = plots.candidates(options.kind, shared.comparisons(options))
    chosen = judge(shared.only(found, options, "a plot"))
    shared.save(
        lambda: plots.draw(options.kind, chosen, output, style=options.style, **choices), output
    )


def _choices(options: argparse.Namespace) -> dict[str, Any]:
    """Of --set, whether or not the figure knows them."""
    known, found = plots.options(options.kind), {}
    for text in options.set:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not equals:
            raise UsageError(f"--set {text}: write it as NAME=VALUE, as in --set x=peak-memory")
        found[name] = value
        if isinstance(known.get(name), bool):
            if value.lower() not in ("true", "false"):
                raise UsageError(f"--set {text}: write {name}=true or {name}=false")
            found[name] = value.lower() == "true"
    return found
