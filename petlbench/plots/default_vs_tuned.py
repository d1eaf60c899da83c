"""What a search gained: validation score of the default and of the winner, and the test score."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from petlbench.leaderboard import Record, metrics
from petlbench.plots import _base as base
from petlbench.plots._base import FRONT, OTHER, Array, Page
from petlbench.plots._dumbbells import dumbbells
from petlbench.plots._search import judged, rules, trials
from petlbench.results import Results


def fits(results: Results) -> bool:
    return base.tells("search", results)


def draw(results: Results) -> Figure:
    """Per method: validation score of the default and of the winner, and the test score (%)."""
    board = results.board
    searched, notes = base.telling("search", results, "--search 20")
    values = {
        name: 100 * base.mean_of_tasks(runs, _default_winner_test)
        for name, runs in searched.items()
    }
    failed = [name for name, (default, *_) in values.items() if np.isnan(default)]
    if failed:
        notes += [f"The default setting failed on some task: {', '.join(failed)}."]
    page = Page.of(
        board,
        f"{judged(searched)} of the default and of the tuned setting",
        [rules(searched), base.seeds([row for row in base.ranked(board) if row.method in values])],
        notes,
    )
    marks = [
        (
            "default, validation",
            {"marker": "o", "ms": 8, "mfc": "white", "color": OTHER, "zorder": 3},
        ),
        ("tuned, validation", {"marker": "o", "ms": 5, "color": FRONT, "zorder": 4}),
        ("tuned, test", {"marker": "|", "ms": 11, "mew": 2, "color": "black", "zorder": 5}),
    ]
    return dumbbells(page, values, marks, f"{judged(searched)} (%), mean of tasks", "gain", order=2)


def _default_winner_test(record: Record) -> Array:
    values, search = trials(record), record["search"]
    test = metrics(record["test"])[search["metric"]]
    return np.array([values[0], values[search["winner"]], test], dtype=float)
