"""Scores of the literature that charge for costs: one module each, found by its file name.

They never rank: each fixes an exchange rate between accuracy and cost that nobody has to share.

    docstring        what it is and where it is from
    FORMULA          in words of the leaderboard's columns, `score` being what ranks
    score(row)       of a row; None where something is not known
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from petlbench import found

if TYPE_CHECKING:
    from petlbench.leaderboard import Leaderboard


def names() -> list[str]:
    return found.names(__path__)


def load(name: str) -> Any:
    """The module of that score."""
    return found.load(__name__, "efficiency score", name, names())


def add(board: Leaderboard, wanted: Sequence[str]) -> Leaderboard:
    """With a column for each score; ranks stay as they are."""
    scores = {name: load(name) for name in wanted}
    rows = (
        replace(row, efficiency={name: module.score(row) for name, module in scores.items()})
        for row in board.rows
    )
    formulas = {name: module.FORMULA for name, module in scores.items()}
    return replace(board, rows=tuple(rows), efficiency=formulas)
