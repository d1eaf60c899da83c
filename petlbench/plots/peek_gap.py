"""What choosing the epoch on the test set would have added."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from petlbench import wording
from petlbench.leaderboard import Record
from petlbench.plots import _base as base
from petlbench.plots._base import FRONT, OTHER, Array, Page
from petlbench.plots._dumbbells import dumbbells
from petlbench.results import Results


def fits(results: Results) -> bool:
    return base.tells("peek", results)


def draw(results: Results) -> Figure:
    """Per method: the reported test score and the best over training (%), mean of tasks."""
    board = results.board
    peeked, notes = base.telling("peek", results, "--report-peek")
    values = {name: 100 * base.mean_of_tasks(runs, _reported_best) for name, runs in peeked.items()}
    found = {run["peek"]["metric"] for runs in peeked.values() for run in runs}
    unit = wording.metric(found.pop()) if len(found) == 1 else "score"
    page = Page.of(
        board,
        f"best-on-test {unit} is shown to measure a bias; it is never reported or used",
        [
            "The gap is what choosing the epoch on the test set would add, in percentage points",
            base.seeds([row for row in base.ranked(board) if row.method in values]),
        ],
        notes,
    )
    marks = [
        ("reported: the last epoch", {"marker": "o", "ms": 5, "color": FRONT, "zorder": 4}),
        (
            "best of all looks at the test set",
            {"marker": "o", "ms": 8, "mfc": "white", "color": OTHER, "zorder": 3},
        ),
    ]
    return dumbbells(page, values, marks, f"test {unit} (%), mean of tasks", "gap", order=0)


def _reported_best(record: Record) -> Array:
    peek = record["peek"]
    return np.array([peek["curve"][-1][peek["metric"]], peek["best"]], dtype=float)
