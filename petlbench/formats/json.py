"""JSON: every field of every board."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from petlbench.leaderboard import Leaderboard

EXTENSION = ".json"


def write(boards: Sequence[Leaderboard]) -> str:
    """Every field of every board; accuracies in [0, 1] and not rounded."""
    return json.dumps([asdict(board) for board in boards], indent=2) + "\n"
