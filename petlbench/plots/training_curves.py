"""The training loss after each epoch: a panel per task."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from petlbench.leaderboard import Record
from petlbench.plots import _base as base
from petlbench.plots._base import GRID, Array, Page, looks
from petlbench.plots._grid import grid
from petlbench.results import Results

_LEAST = 1e-6  # records round to it, and a logarithm needs more than 0


def fits(results: Results) -> bool:
    return base.tells("train_loss", results)


def draw(results: Results) -> Figure:
    """Mean over seeds, on a logarithmic axis; methods best first.

    Losses of methods that drop or mix inputs are not those of methods that do not: a curve tells
    whether training has settled, not which method is better.
    """
    board = results.board
    trained, lacking = base.telling("train_loss", results)
    rows = [row for row in base.ranked(board) if row.method in trained]
    curves = {name: _by_task(runs) for name, runs in trained.items()}
    tasks = [task for task in board.tasks if any(task in each for each in curves.values())]
    page = Page.of(board, "training loss of each task", [f"mean of {base.seeds(rows)}"], lacking)
    figure, panels = grid(page, tasks, list(curves), "epoch", "training loss, logarithmic")
    for axes, task in zip(panels, tasks, strict=True):
        for each, look in zip(curves.values(), looks(len(curves)), strict=True):
            loss = np.maximum(each[task], _LEAST)
            epochs = np.arange(1, len(loss) + 1)
            axes.plot(epochs, loss, **{**look, "marker": ""}, lw=1.2)
            axes.plot(epochs[-1], loss[-1], **{**look, "ls": ""}, ms=4, mew=0.8)
        axes.set_yscale("log")
        low, high = axes.get_ylim()
        subs = (1,) if high > 150 * low else (1, 2, 5)
        axes.yaxis.set_major_locator(LogLocator(subs=subs))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.grid(axis="y", **GRID)
    return figure


def _by_task(runs: list[Record]) -> dict[str, Array]:
    """The mean curve of each task."""
    found: defaultdict[str, list[list[float]]] = defaultdict(list)
    for run in runs:
        found[run["spec"]["task"]].append(run["train_loss"])
    return {task: np.mean(losses, axis=0) for task, losses in found.items()}
