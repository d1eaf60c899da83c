"""The mean of each group of tasks, and what ranks: a dot with its interval per method."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from petlbench.plots import _base as base
from petlbench.plots import _rows
from petlbench.plots._base import FRONT, OTHER, Page
from petlbench.results import Results


def draw(results: Results) -> Figure:
    """A panel per group (%), each with its own scale; methods by what ranks, best first.

    Filled dots cannot be told apart from the best of their panel; they are the best of it where
    that was not looked at.
    """
    board, rows = results.board, base.ranked(results.board)
    panels = {board.ranking: [row.ranking for row in rows]}
    panels |= {group: [row.groups[group] for row in rows] for group in board.groups}
    bar, told = base.bars([score for scores in panels.values() for score in scores if score])
    equal = {name: [score and score.best for score in scores] for name, scores in panels.items()}
    equal[board.ranking] = [row.as_good_as_best for row in rows]  # as the letters have it
    known = all(each is not None for each in equal[board.ranking])
    best = "not told apart from the best" if known else "the best"
    page = Page.of(
        board,
        f"{base.metric(board)} of each group (%)",
        [base.words(base.seeds(rows), told, f"filled: {best}")],
        base.judged(board),
    )
    figure, all_axes, y = _rows.panels(page, rows, list(panels))
    for axes, (name, scores) in zip(all_axes, panels.items(), strict=True):
        values = np.array([base.percent(score) for score in scores])
        reach = np.array([bar(score) if score else (np.nan, np.nan) for score in scores])
        filled = np.array(equal[name], dtype=bool) if known else values == np.nanmax(values)
        axes.errorbar(values, y, xerr=reach.T, fmt="none", color=OTHER, elinewidth=1, capsize=2)
        for chosen, fill in ((filled, FRONT), (~filled, "white")):
            axes.plot(values[chosen], y[chosen], "o", ms=5, color=FRONT, mfc=fill)
    return figure
