"""Every seed's score: a dot per seed and method, and their mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from petlbench.errors import unknown
from petlbench.plots import _base as base
from petlbench.plots import _rows
from petlbench.plots._base import FRONT, Page
from petlbench.results import Results
from petlbench.statistics import panel as panels

_SEED: dict[str, Any] = {"marker": "o", "ms": 5, "color": FRONT, "mfc": "none", "mew": 1.1}
_MEAN: dict[str, Any] = {"marker": "|", "ms": 11, "mew": 1.8, "color": "black"}
_BY = ("mean", "task")


def draw(results: Results, by: str = "mean") -> Figure:
    """What ranks (%), and with `by="task"` a panel per task with its own scale.

    A seed's mean is over its own scores of all tasks: the spread that the leaderboard tells.
    """
    if by not in _BY:
        raise unknown("by of seed-spread", by, _BY)
    board, rows = results.board, base.ranked(results.board)
    panel = panels.of(results)
    shown = [board.ranking, *(board.tasks if by == "task" else ())]
    page = Page.of(
        board,
        f"{base.metric(board)} of each seed (%)",
        [base.words(base.seeds(rows), "a circle each, the stroke is their mean")],
        base.judged(board),
    )
    figure, all_axes, y = _rows.panels(page, rows, shown)
    for axes, name in zip(all_axes, shown, strict=True):
        weights = panel.columns[name].weights(len(panel.tasks))
        values = 100 * np.einsum("mts,t->ms", panel.scores, weights)  # NaN: a seed not run
        axes.plot(values, y, ls="", **_SEED)
        axes.plot(np.nanmean(values, axis=1), y, ls="", **_MEAN)
    return figure
