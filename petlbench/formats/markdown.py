"""Markdown: tables for a README."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from petlbench.formats import _text
from petlbench.leaderboard import Leaderboard, compact

EXTENSION = ".md"


def write(boards: Sequence[Leaderboard]) -> str:
    """Tables for a README: percent with spread, caption and notes below each."""
    parts = [f"{_text.apart(boards)}.\n"] if len(boards) > 1 else []
    for board in boards:
        columns = [
            ["Rank", *(str(row.rank or "–") for row in board.rows)],
            ["Method", *(_text.name(row) for row in board.rows)],
        ]
        columns += [
            [header, *_text.texts(board, scores, "{}" if header == _text.GAP else "**{}**")]
            for header, scores in _text.columns(board)
        ]
        columns += [
            ["Params", *(_text.parameters(row) for row in board.rows)],
            ["With head", *(compact(row.trainable_parameters_with_head) for row in board.rows)],
            ["Training", *(_text.duration(row.train_seconds) for row in board.rows)],
            ["Peak memory", *(_text.size(row.peak_bytes) for row in board.rows)],
            ["Stored", *(_text.size(row.stored_bytes) for row in board.rows)],
        ]
        lines = [_line(cells) for cells in zip(*columns, strict=True)]
        lines.insert(1, _line([":--" if c[0] == "Method" else "--:" for c in columns]))
        lines += ["", f"{_text.caption(board)} Best of the ranked rows in bold."]
        if board.notes:
            lines += ["", *(f"- {note}" for note in board.notes)]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _line(cells: Iterable[str]) -> str:
    escaped = (" ".join(cell.replace("|", "\\|").split()) for cell in cells)
    return f"| {' | '.join(escaped)} |"
