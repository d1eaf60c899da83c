"""compare methods at one budget of parameters, memory or training time"""

from __future__ import annotations

import argparse
import re
from functools import partial
from typing import TYPE_CHECKING

from petlbench.commands import _shared as shared

if TYPE_CHECKING:
    from rich.console import Console

    from petlbench.matched import Matched

ORDER = 67
ENDINGS = {"table": ".txt", "csv": ".csv", "markdown": ".md"}


def add(parser: argparse.ArgumentParser) -> None:
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--parameters", metavar="N", help="trainable, without head: 300K, 1.5M")
    budget.add_argument("--memory", metavar="M", help="the largest of all runs: 800MB, 2GB")
    budget.add_argument("--train-time", metavar="T", help="all tasks, one seed: 60s, 10min, 2h")
    text = 'methods, or single rows of them: lora,"vpt(tokens=10)"; vpt() is the one named vpt'
    parser.add_argument("--methods", type=_names, metavar="A,B", help=text)
    shared.add_results(parser)
    shared.add_metric(parser)
    shared.add_format(parser, ENDINGS)


def run(options: argparse.Namespace) -> None:
    from petlbench import matched
    from petlbench.formats import table

    form = shared.chosen_format(options, ENDINGS)
    costs = {
        "parameters": matched.PARAMETERS,
        "memory": matched.MEMORY,
        "train_time": matched.TIME,
    }
    asked = next(name for name in costs if getattr(options, name) is not None)
    cost = costs[asked]
    budget = cost.parse(getattr(options, asked))
    results = shared.only(shared.comparisons(options), options, "a table")
    found = matched.match(results, cost, budget, options.methods)
    if form == "csv":
        shared.output(_csv(found), options.output)
    elif form == "markdown":
        shared.output(_markdown(found), options.output)
    elif options.output:
        shared.output(table.text(partial(_print, found)), options.output)
    else:
        _print(found, shared.console())


def _names(text: str) -> list[str]:
    """Of A,B; a comma within brackets is part of a name: "lora(rank=2, alpha=3)"."""
    return [name.strip() for name in re.split(r",(?![^(]*\))", text) if name.strip()]


HEADER = ("Method", "Test score (%)", "95% interval", "Rank group", "Settings (cost, share)")


def _rows(found: Matched) -> list[list[str]]:
    return [
        [
            point.method,
            f"{100 * point.score:.1f}",
            f"[{100 * point.low:.1f}, {100 * point.high:.1f}]",
            point.letters or "–",
            " + ".join(
                f"{row} ({found.cost.text(cost)}, {share:.0%})"
                for row, cost, share in point.settings
            ),
        ]
        for point in found.points
    ]


def _title(found: Matched) -> str:
    return f"at {found.cost.text(found.budget)} of {found.cost.name}"


def _notes(found: Matched) -> list[str]:
    """What is not in the table first."""
    return [*(f"Not at this budget: {n}: {why}." for n, why in found.refused.items()), *found.notes]


def _print(found: Matched, console: Console) -> None:
    from rich.markup import escape

    from petlbench.formats import table

    shown = table.empty(_title(found))
    for header in HEADER:
        shown.add_column(header, overflow="fold")
    for line in _rows(found):
        shown.add_row(*map(escape, line))
    console.print(shown)
    for note in _notes(found):
        console.print(escape(note), highlight=False)


def _markdown(found: Matched) -> str:
    from petlbench.formats import markdown

    rows = [map(markdown.escaped, row) for row in (HEADER, *_rows(found))]
    lines = [rows[0], [":--", "--:", "--:", ":--", ":--"], *rows[1:]]
    table = "\n".join(map(markdown.line, lines))
    notes = "\n".join(f"- {markdown.escaped(note)}" for note in _notes(found))
    return f"Methods {markdown.escaped(_title(found))}.\n\n{table}\n\n{notes}\n"


def _csv(found: Matched) -> str:
    """One line per method; scores in [0, 1]; a method without a point says why."""
    from petlbench import spreadsheet

    names = ("method", "score", "low", "high", "rank_group", "settings", "why_not")
    lines = []
    asked = {"cost": found.cost.name, "budget": f"{found.budget:g}"}
    for point, line in zip(found.points, _rows(found), strict=True):
        scores = {name: round(getattr(point, name), 6) for name in ("score", "low", "high")}
        shown = {"method": point.method, "rank_group": point.letters, "settings": line[-1]}
        lines.append(asked | scores | shown)
    for method, why in found.refused.items():
        lines.append(asked | {"method": method, "why_not": why})
    return spreadsheet.write(["cost", "budget", *names], lines)
