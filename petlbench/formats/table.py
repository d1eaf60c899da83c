"""Tables for a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from petlbench.formats import _text
from petlbench.leaderboard import Leaderboard
from petlbench.results import Results

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

EXTENSION = ".txt"

_SHORT = {
    "Rank": "#",
    "Rank group": "rank\ngroup",
    "Method": "method",
    "Params": "params",
    "Training": "train",
}
# Characters of a method's name in a line: at 25, six accuracy columns beside it fit into 100.
_WIDTH, _FOLDED, _LEAST = 25, 13, 7
_TOO_MANY = ("With head", "At inference", "Peak memory", "Stored")  # for a screen


def write(found: Sequence[Results]) -> str:
    boards = [each.board for each in found]
    return text(lambda console: show(boards, console))


def text(show: Callable[[Console], object]) -> str:
    """What is shown, as on a screen without colours that is as wide as the tables."""
    from petlbench import screen

    console = screen.console(file=io.StringIO(), width=10_000)
    with console.capture() as captured:
        show(console)
    return "\n".join(line.rstrip() for line in captured.get().splitlines()) + "\n"


def empty(title: str) -> Table:
    """A table as all of ours look, without columns."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title=escape(title))


def show(boards: Sequence[Leaderboard], console: Console) -> None:
    """On a screen: columns appear where the width allows, but who is ranked always."""
    from rich.markup import escape

    for board in boards:
        means, groups = _text.means(board), _text.groups(board)
        tasks, rest = _text.tasks(board), _text.further(board)
        chosen = board.ranking.lower()  # a mean, or a group
        ranking = [column for column in means + groups if column.header.lower() == chosen]
        summary = means + [column for column in ranking if column in groups]
        costs = [column for column in _text.costs(board) if column.header not in _TOO_MANY]
        few = ranking or means
        wide = [means + groups + tasks + rest, means + groups + rest, summary + rest]
        wide += [means + groups, summary, few]
        choices = [(_WIDTH, scores + costs) for scores in wide]
        choices += [(_FOLDED, each) for each in (few + costs, few + costs[:1], few)]
        choices += [(_LEAST, few), (_FOLDED, [])]
        for width, numbers in choices:
            columns = [*_text.who(board), *numbers]
            table = _table(board, columns, width)
            unbounded = console.options.update(width=10_000)
            if console.measure(table, options=unbounded).maximum <= console.width:
                break
        console.print(table)
        console.print(escape(_text.caption(board, columns)), style="dim", highlight=False)
        for note in board.notes:
            console.print(f"[yellow]![/] {escape(note)}", highlight=False)
        console.print()
    if why := _text.apart(boards):
        console.print(f"[yellow]![/] {escape(why)}", highlight=False)


def _table(board: Leaderboard, columns: Sequence[_text.Column], width: int) -> Table:
    """`width`: of the names of methods; longer ones are folded."""
    from rich.markup import escape

    title = f"{board.suite} · {board.backbone['name']} · protocol {board.protocol['name']}"
    table = empty(title)
    for column in columns:
        header = column.header.replace(" of ", " of\n").replace(" served", "\nserved")
        short = escape(_SHORT.get(column.header, header))
        if column.header == "Method":
            table.add_column(short, overflow="fold", max_width=width)
        else:
            table.add_column(short, justify="left" if column.is_text else "right", no_wrap=True)
    for row, *cells in zip(board.rows, *(column.cells for column in columns), strict=True):
        table.add_row(*map(_cell, cells), style=None if row.complete else "dim")
    return table


def _cell(cell: _text.Cell) -> str:
    from rich.markup import escape

    text, spread = escape(cell.text), escape(cell.spread).replace("± ", "±")
    text = f"[bold]{text}[/]" if cell.mark == "best" else text
    return f"{text} {spread}".rstrip()
