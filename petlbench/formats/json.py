"""JSON: every field of every board, and what the columns mean."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from petlbench.formats import _text
from petlbench.results import Results

EXTENSION = ".json"


def write(found: Sequence[Results]) -> str:
    """Scores in [0, 1] and not rounded; `definitions` say what the fields of rows are."""
    boards = [
        asdict(board) | {"definitions": _text.definitions(board, _text.columns(board))}
        for board in (each.board for each in found)
    ]
    return json.dumps(boards, indent=2, allow_nan=False) + "\n"
