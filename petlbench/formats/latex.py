r"""LaTeX: tables for a paper, with \usepackage{booktabs}."""

from __future__ import annotations

import re
from collections.abc import Sequence

from petlbench.formats import _text
from petlbench.leaderboard import Leaderboard
from petlbench.results import Results
from petlbench.wording import visible

EXTENSION = ".tex"

_ESCAPED = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "–": "--",
    "[": "{[}",  # after a line break it would be read as its argument
    "]": "{]}",
}
_LIGATURE = re.compile(r"(?<=[-–`',!?])(?=[-–`',])")  # between what would be drawn as one sign


def write(found: Sequence[Results]) -> str:
    """One table for each comparison: the best of a column in bold, the second underlined.

    Where it is known what cannot be told apart from the best, all of that is in bold, and the
    highest of the rest is underlined.
    """
    boards = [each.board for each in found]
    why = _text.apart(boards)
    parts = [r"% \usepackage{booktabs}", *([f"% {' '.join(why.split())}"] if why else [])]
    return "\n".join([*parts, *map(_table, boards)])


def _table(board: Leaderboard) -> str:
    columns = _text.columns(board)
    rows = zip(*(column.cells for column in columns), strict=True)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{escape(_text.caption(board, columns))} The second is underlined.}}",
        rf"\begin{{tabular}}{{{''.join('l' if column.is_text else 'r' for column in columns)}}}",
        r"\toprule",
        _line([escape(column.header) for column in columns]),
        r"\midrule",
        *(_line([_cell(cell) for cell in cells]) for cells in rows),
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\noindent {escape(note)}" for note in board.notes),
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """As it reads, whatever LaTeX would make of it; on one line."""
    parts = _LIGATURE.split(" ".join(visible(text).split()))
    return "{}".join("".join(_ESCAPED.get(sign, sign) for sign in part) for part in parts)


def _cell(cell: _text.Cell) -> str:
    text = escape(cell.text)
    marked = {"best": rf"\textbf{{{text}}}", "second": rf"\underline{{{text}}}"}.get(cell.mark)
    return f"{marked or text} {escape(cell.spread)}".rstrip()


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
