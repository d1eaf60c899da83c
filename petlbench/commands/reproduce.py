"""what was measured against what was published"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from petlbench import wording
from petlbench.commands import _shared as shared

if TYPE_CHECKING:
    from rich.console import Console

    from petlbench.reproduce import Cell, Number, Reproduction

ORDER = 82
ENDINGS = {"table": ".txt", "csv": ".csv"}


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("method", help="by petlbench's name: convpass")
    add("--suite", required=True, help="as in: vtab-1k")
    shared.add_results(parser, suite=False)
    add("--source", metavar="S", help="only this source: convpass, or arXiv:2207.07039")
    shared.add_metric(parser)
    shared.add_format(parser, ENDINGS)


def run(options: argparse.Namespace) -> None:
    from petlbench import spreadsheet
    from petlbench.formats import table
    from petlbench.reproduce import reproduce, to_frame

    form = shared.chosen_format(options, ENDINGS)
    found = shared.comparisons(options)
    made = reproduce(found, options.method, options.suite, options.source)
    if form == "csv":
        shared.output(spreadsheet.from_frame(to_frame(made)), options.output)
    elif options.output:
        shared.output(table.text(partial(_print, made)), options.output)
    else:
        _print(made, shared.console())


def _print(made: list[Reproduction], console: Console) -> None:
    for each in made:
        shown = [
            i
            for i in range(len(each.sources))
            if any(line.measured and line.cells[i] for line in each.lines)
        ]
        # task and measured take 45 columns, a source 30; what does not fit has a table of its own
        at_once = max(1, (console.width - 45) // 30)
        for start in range(0, len(shown), at_once):
            _table(each, shown[start : start + at_once], console)
        _notes(each, shown, console)


def _table(each: Reproduction, sources: list[int], console: Console) -> None:
    from rich.markup import escape

    from petlbench.formats import table

    shown = table.empty(
        f"{each.method} · {each.board.suite} · fingerprint {each.board.fingerprint}"
    )
    shown.add_column("task")
    shown.add_column("measured", justify="right", no_wrap=True)
    for i in sources:
        shown.add_column(f"published {escape(f'[{i + 1}]')}", justify="right", no_wrap=True)
        shown.add_column("difference", justify="right", no_wrap=True)
    for line in each.lines:
        cells = [text for i in sources for text in _cell(line.cells[i])]
        ours = _number(line.measured, "{:.1f}") if line.measured else "not measured"
        style = None if line.measured else "dim"
        shown.add_row(*map(escape, (line.name, ours, *cells)), style=style)
    console.print(shown)


def _cell(cell: Cell | None) -> tuple[str, str]:
    if cell is None:
        return "", ""
    published = f"{cell.published:.2f}".removesuffix("0") + ("" if cell.printed else "*")
    return published, _number(cell.difference, "{:+.1f}") if cell.difference else ""


def _number(number: Number, form: str) -> str:
    low, high = form.format(number.low), form.format(number.high)
    return f"{form.format(number.value)} [{low}, {high}]"


def _notes(each: Reproduction, shown: list[int], console: Console) -> None:
    from rich.markup import escape

    notes = [
        f"In % ({wording.metric(each.board.metric)}); difference: measured minus published, in "
        "percentage points. Intervals: 95%; measured: test examples"
        f"{' and seeds' if each.seeds > 1 else ' (one seed: its luck is not in it)'}; published: "
        "binomial of the declared test set, because nothing else of it is known. Means are "
        "compared only where every task was measured."
    ]
    for i in shown:
        source, protocol = each.sources[i], each.protocols[i]
        notes.append(
            f"[{i + 1}] {source.source} ({source.source_id}), {source.label}, {source.backbone}; "
            f"{', '.join(source.tables)}."
        )
        notes += [f"    {line}" for line in protocol.apart]
        if protocol.unknown:
            notes.append(f"    not known of it: {', '.join(protocol.unknown)}")
    if hidden := len(each.sources) - len(shown):
        notes.append(f"{hidden} more published rows have no number of what was measured.")
    if any(cell and not cell.printed for line in each.lines for cell in line.cells):
        notes.append("* Not printed: the mean of what is printed.")
    notes.append(
        "Indented: measured | published. Where they differ, or are not known, the two are not the "
        "same experiment, and a difference is no failure to reproduce."
    )
    for note in notes:
        console.print(escape(note), style="dim", highlight=False)
    console.print()
