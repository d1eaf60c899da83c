"""Markdown: tables for a README."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from petlbench.formats import _text
from petlbench.leaderboard import Leaderboard
from petlbench.results import Results
from petlbench.wording import visible

EXTENSION = ".md"

_MARKUP = re.compile(
    r"[\\`*\[\]<~$]|(?<![^\W_])_|_(?![^\W_])"  # a backslash before each of these
    r"|&(?=#?\w+;)"  # of an entity
    r"|^>|^[#+=-](?=[#+= -]|$)"  # of a quotation, a heading, a list
)
_NUMBER = re.compile(r"^(\d{1,9})(?=[.)]( |$))")  # of a list


def write(found: Sequence[Results]) -> str:
    """One table for each comparison, caption and notes below it; the best in bold."""
    boards = [each.board for each in found]
    why = _text.apart(boards)
    parts = [f"{escaped(why)}\n"] if why else []
    return "\n".join([*parts, *map(_table, boards)])


def _table(board: Leaderboard) -> str:
    columns = _text.columns(board)
    lines = [
        line(escaped(column.header) for column in columns),
        line(":--" if column.is_text else "--:" for column in columns),
        *(line(map(_cell, cells)) for cells in zip(*(c.cells for c in columns), strict=True)),
        "",
        escaped(_text.caption(board, columns)),
    ]
    if board.notes:
        lines += ["", *(f"- {escaped(note)}" for note in board.notes)]
    return "\n".join(lines) + "\n"


def _cell(cell: _text.Cell) -> str:
    text = escaped(cell.text)
    return f"**{text}** {cell.spread}".rstrip() if cell.mark == "best" else f"{text} {cell.spread}"


def line(cells: Iterable[str]) -> str:
    """Of a table."""
    joined = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(joined)} |"


def escaped(text: str) -> str:
    """As it reads, whatever Markdown and HTML would make of it; on one line.

    A `|` is left to `line`. An underscore within a word is none of Markdown's signs.
    """
    marked = _MARKUP.sub(r"\\\g<0>", " ".join(visible(text).split()))
    return _NUMBER.sub(r"\1\\", marked)
