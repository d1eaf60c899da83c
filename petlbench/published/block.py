"""Tables of published numbers, for a terminal and for Markdown; and those beside a leaderboard.

Sources are numbered: a list below the table says which they are and how their numbers were made.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from petlbench.formats import markdown as md
from petlbench.formats import table
from petlbench.published import MEANS, groups, load
from petlbench.published.rows import Row, of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console
    from rich.table import Table

NOT_RANKED = (
    "Published numbers in %, corrected where a note says so: not measured here, not made under one "
    "protocol, and ranked neither with the measured ones nor among themselves."
)
MARKS = {
    "*": "Not printed: the mean of what is printed.",
    "†": "Does not follow from what else is printed, by more than rounding.",
}
ROUNDING = 0.1  # of a mean and of its parts, printed with one digit


def beside(suite: str, methods: Iterable[str]) -> list[Row]:
    """The rows that belong beside a board: its suite, its methods, on any backbone.

    `methods` are names or labels of a board's rows; their settings do not matter.
    """
    names = {method.partition("(")[0].partition("[")[0].partition("@")[0] for method in methods}
    frame = load()
    chosen = frame["suite"].eq(suite) & frame["method"].isin(names)
    return of(frame[chosen])


def to_table(suite: str, methods: Iterable[str], console: Console) -> None:
    """The block below a leaderboard, on a screen: means and groups."""
    _print(beside(suite, methods), console, whole=False)


def to_markdown(suite: str, methods: Iterable[str]) -> str:
    """The block below a leaderboard, in Markdown: means and groups."""
    return markdown(beside(suite, methods), whole=False)


def show(rows: Sequence[Row], console: Console) -> None:
    """On a screen, a table for each suite; tasks appear where the width allows."""
    for suite in dict.fromkeys(row.suite for row in rows):
        _print([row for row in rows if row.suite == suite], console, whole=True)


def text(rows: Sequence[Row]) -> str:
    """As on a screen that is as wide as the tables."""
    return table.text(lambda console: show(rows, console))


def overview(frame: pd.DataFrame) -> str:
    """How many numbers of which suites and sources there are."""
    lines = []
    for suite, part in frame.groupby("suite", sort=False):
        methods = part["method"].nunique()
        names = ", ".join(dict.fromkeys(part["experiment"].str.partition("/")[0]))
        lines.append(f"{suite:<22} {len(part):>5} numbers, {methods:>2} methods, from {names}")
    hint = "See them: petlbench published --suite vtab-1k, --method convpass, --source fact, ..."
    return "\n".join([*lines, "", hint]) + "\n"


def markdown(rows: Sequence[Row], whole: bool = True) -> str:
    """In Markdown, a table for each suite: every task or, without `whole`, means and groups."""
    parts = []
    for suite in dict.fromkeys(row.suite for row in rows):
        grid = as_grid([row for row in rows if row.suite == suite], whole)
        lines = [md.line(cells) for cells in (grid.header, *grid.rows)]
        lines.insert(1, md.line([":--" if i < _TEXTS else "--:" for i in range(len(grid.header))]))
        notes = [f"- {note}" for note in grid.notes]
        parts.append("\n".join([f"{NOT_RANKED} Suite {suite}.", "", *lines, "", *notes]) + "\n")
    return "\n".join(parts) or "No published number is known of these methods in this suite.\n"


_TEXTS = 3  # columns before the numbers
_WIDTH, _FOLDED = 32, 12  # characters of a line in them


@dataclass(frozen=True)
class Grid:
    header: list[str]
    rows: list[list[str]]
    notes: list[str]


def as_grid(rows: Sequence[Row], whole: bool) -> Grid:
    """The cells of one suite's table. `whole`: tasks too, not only means and groups."""
    columns = _columns(rows, whole)
    made = [(row.source, row.source_id, row.protocol) for row in rows]
    numbers = {alike: i + 1 for i, alike in enumerate(dict.fromkeys(made))}
    tables: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    told: defaultdict[tuple[str, str, str], dict[str, None]] = defaultdict(dict)
    header = [task if metric == "accuracy" else f"{task} {metric}" for task, metric in columns]
    lines = []
    for row, alike in zip(rows, made, strict=True):
        cells = [_cell(row, column) for column in columns]
        size = "" if math.isnan(row.params_millions) else f"{row.params_millions:.3g}"
        tables[alike].update(dict.fromkeys(row.tables))
        told[alike].update(dict.fromkeys(row.notes))
        named = row.method
        if row.label.lower() != row.method:
            named += f" ({row.label})"
        lines.append([named, row.backbone, f"[{numbers[alike]}]", *cells, size])
    notes = [
        " ".join(
            [
                f"[{number}] {alike[0]} ({alike[1]}), {', '.join(tables[alike])}: {alike[2]}.",
                *told[alike],
            ]
        )
        for alike, number in numbers.items()
    ]
    ends = {cell[-1:] for line in lines for cell in line}
    notes += [f"{mark} {text}" for mark, text in MARKS.items() if mark in ends]
    return Grid(["method", "backbone", "source", *header, "params (M)"], lines, notes)


def _columns(rows: Sequence[Row], whole: bool) -> list[tuple[str, str]]:
    """(task, metric) of every column: means, groups, and tasks in the suite's order."""
    there = dict.fromkeys(column for row in rows for column in row.scores)
    members = groups(rows[0].suite)
    summary = [*MEANS, *members]
    order = [*summary, *(task for tasks in members.values() for task in tasks)]
    place = {name: i for i, name in enumerate(order)}
    columns = sorted(there, key=lambda c: (place.get(c[0], len(place)), c[1] != "mean_recall"))
    if whole:
        return columns
    return [c for c in columns if c[0] in summary or c[1] == "mean_recall"] or columns


def _cell(row: Row, column: tuple[str, str]) -> str:
    value, made = row.printed.get(column), row.recomputed.get(column)
    if value is None:
        return "" if made is None else f"{made:.1f}*"
    text = f"{value:.2f}".removesuffix("0")
    return f"{text}†" if made is not None and abs(value - made) > ROUNDING + 1e-9 else text


def _print(rows: Sequence[Row], console: Console, whole: bool) -> None:
    from rich.markup import escape

    if not rows:
        console.print("No published number is known of these methods in this suite.")
        return
    unbounded = console.options.update(width=10_000)
    title = f"published · {rows[0].suite}"
    summary = as_grid(rows, False)
    every = as_grid(rows, True) if whole else summary
    choices = [(every, len(every.header), _WIDTH)]
    choices += [(summary, len(summary.header), width) for width in (_WIDTH, _FOLDED)]
    # who said it of what stays, however narrow the screen
    choices += [(summary, n, _FOLDED) for n in range(len(summary.header) - 1, _TEXTS - 1, -1)]
    for grid, count, width in choices:
        shown = _table(grid, title, count, width)
        if console.measure(shown, options=unbounded).maximum <= console.width:
            break
    console.print(shown)
    for note in (NOT_RANKED, *grid.notes):
        console.print(escape(note), style="dim", highlight=False)
    if count < len(every.header):
        left = "Not all numbers" if count < len(summary.header) else "Not every task"
        task = ", --task T" if whole else ""
        console.print(f"{left}: a wider terminal{task}, or --format markdown has them.")
    console.print()


def _table(grid: Grid, title: str, count: int, width: int) -> Table:
    """Of the first `count` columns; words are folded at `width`."""
    from rich.markup import escape

    shown = table.empty(title)
    for i, header in enumerate(grid.header[:count]):
        if i < _TEXTS:
            shown.add_column(header, overflow="fold", max_width=width)
        else:
            text = escape(header.replace(" ", "\n"))
            shown.add_column(text, justify="right", no_wrap=True)
    for line in grid.rows:
        shown.add_row(*map(escape, line[:count]))
    return shown
