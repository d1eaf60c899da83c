"""A circle per seed: their means are what the leaderboard says."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
from matplotlib.figure import Figure

from petlbench import plots
from petlbench.errors import UsageError

RESULTS = synthetic.results(synthetic.records(["lora", "linear", "vpt"], 4, 3, images=40))


def circles(figure: Figure, panel: int) -> np.ndarray:
    """(seeds, methods)"""
    lines = [line for line in figure.axes[panel].lines if line.get_marker() == "o"]
    return np.array([line.get_xdata() for line in lines])


@pytest.mark.parametrize("by", ["mean", "task"])
def test_circles(by: str) -> None:
    figure, board = plots.draw("seed-spread", RESULTS, by=by), RESULTS.board
    panels = [[row.ranking for row in board.rows]]
    panels += [[row.tasks[task] for row in board.rows] for task in board.tasks] * (by == "task")
    assert len(figure.axes) == len(panels)
    for i, scores in enumerate(panels):
        found = circles(figure, i)
        assert found.mean(axis=0) == pytest.approx([100 * s.mean for s in scores if s])
        assert found.std(axis=0, ddof=1) == pytest.approx([100 * (s.std or 0) for s in scores if s])


def test_an_unknown_way() -> None:
    with pytest.raises(UsageError, match="unknown by of seed-spread 'tasks'"):
        plots.draw("seed-spread", RESULTS, by="tasks")
