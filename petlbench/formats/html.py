"""HTML: plain tables in a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from petlbench.formats import _text
from petlbench.leaderboard import Leaderboard
from petlbench.results import Results
from petlbench.wording import visible

EXTENSION = ".html"

_STYLE = (
    "body { font: 14px/1.4 system-ui, sans-serif; margin: 2em; color-scheme: light dark }\n"
    "table { border-collapse: collapse; font-variant-numeric: tabular-nums }\n"
    "caption { text-align: left; max-width: 60em; padding-bottom: 1em }\n"
    "th, td { padding: .2em .6em; text-align: right; white-space: nowrap }\n"
    "thead th { border-bottom: 1px solid }\n"
    ".text { text-align: left }\n"
    "small { opacity: .75 }"
)


def write(found: Sequence[Results]) -> str:
    """One table for each comparison, its caption above and notes below; the best in bold."""
    boards = [each.board for each in found]
    why = _text.apart(boards)
    above = f"<p>{_escaped(why)}</p>\n" if why else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<title>petlbench leaderboard</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n"
        f"{above}{''.join(map(_table, boards))}</body>\n</html>\n"
    )


def _table(board: Leaderboard) -> str:
    columns = _text.columns(board)
    rows = zip(*(column.cells for column in columns), strict=True)
    lines = [
        "<table>",
        f"<caption>{_escaped(_text.caption(board, columns))}</caption>",
        "<thead>",
        _line("th", columns, [_escaped(column.header) for column in columns]),
        "</thead>",
        "<tbody>",
        *(_line("td", columns, [_cell(cell) for cell in cells]) for cells in rows),
        "</tbody>",
        "</table>",
    ]
    if board.notes:
        lines += ["<ul>", *(f"<li>{_escaped(note)}</li>" for note in board.notes), "</ul>"]
    return "\n".join(lines) + "\n"


def _line(tag: str, columns: Sequence[_text.Column], cells: Sequence[str]) -> str:
    kinds = [' class="text"' if column.is_text else "" for column in columns]
    inside = (f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))
    return f"<tr>{''.join(inside)}</tr>"


def _cell(cell: _text.Cell) -> str:
    text = _escaped(cell.text)
    text = f"<b>{text}</b>" if cell.mark == "best" else text
    return f"{text} <small>{_escaped(cell.spread)}</small>" if cell.spread else text


def _escaped(text: str) -> str:
    return escape(visible(text))
