"""Tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from petlbench.formats import _text
from petlbench.formats._text import Columns
from petlbench.leaderboard import Leaderboard

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EXTENSION = ".txt"


def write(boards: Sequence[Leaderboard]) -> str:
    """As on a screen without colours that is as wide as the tables."""
    from rich.console import Console

    console = Console(file=io.StringIO(), width=10_000)
    with console.capture() as captured:
        show(boards, console)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def show(boards: Sequence[Leaderboard], console: Console) -> None:
    """On a screen; task and group columns appear where the width allows."""
    from rich.markup import escape

    for board in boards:
        means, groups, rest = _text.means(board), _text.of_groups(board), _text.further(board)
        everything = _text.columns(board)
        for columns in (everything, means + groups + rest, means + rest, means + groups, means):
            table = _table(board, columns)
            unbounded = console.options.update(width=10_000)
            if console.measure(table, options=unbounded).maximum <= console.width:
                break
        console.print(table)
        console.print(escape(_text.caption(board)), style="dim", highlight=False)
        for note in board.notes:
            console.print(f"[yellow]![/] {escape(note)}", highlight=False)
        console.print()
    if len(boards) > 1:
        console.print(f"[yellow]![/] {escape(_text.apart(boards))}.", highlight=False)


def _table(board: Leaderboard, columns: Columns) -> Table:
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    title = f"{board.suite} · {board.backbone['name']} · protocol {board.protocol['name']}"
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=escape(title))
    table.add_column("#", justify="right")
    # 25: six accuracy columns beside it still fit into 100
    table.add_column("method", overflow="fold", max_width=25)
    for header, _ in columns:
        table.add_column(escape(header.replace(" of ", " of\n")), justify="right", no_wrap=True)
    table.add_column("params", justify="right", no_wrap=True)
    table.add_column("train", justify="right", no_wrap=True)
    texts = [
        _text.texts(board, scores, "{}" if header == _text.GAP else "[bold]{}[/]")
        for header, scores in columns
    ]
    for i, row in enumerate(board.rows):
        table.add_row(
            str(row.rank or "–"),
            escape(_text.name(row)),
            *(column[i].replace("± ", "±") for column in texts),
            _text.parameters(row),
            _text.duration(row.train_seconds),
            style=None if row.complete else "dim",
        )
    return table
