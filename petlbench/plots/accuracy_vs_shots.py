"""What is measured against the amount of training images: a panel per data set."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petlbench.errors import UsageError
from petlbench.leaderboard import Leaderboard, Score
from petlbench.plots import _base as base
from petlbench.plots._base import GRID, Page, looks
from petlbench.plots._grid import grid
from petlbench.results import Results

_AMOUNT = re.compile(r"(?=.*[1-9])(\d+(?:\.\d+)?)\s*(\D*)")  # more than 0: the axis is logarithmic
_UNITS = {  # without the plural's s -> in the title, at the axis
    "shot": ("shots", "training images a class (shots)"),
    "%": ("share of training images", "share of the training images (%)"),
}


def fits(results: Results) -> bool:
    try:
        _amounts(results.board)
    except UsageError:
        return False
    return True


def draw(results: Results) -> Figure:
    """The metric (%) against a group's number ("16 shots", "0.63 %"): a panel per data set.

    Tasks are called <data set>@<amount>. The first panel is the mean over data sets, at the
    amounts that every data set was run with. Bars are those of `_base.bars`.
    """
    board = results.board
    rows, amount, unit = base.ranked(board), *_amounts(board)
    short, label = _UNITS.get(unit, (unit, unit))
    ticks = sorted(set(amount.values()))
    task_at: defaultdict[str, dict[float, str]] = defaultdict(dict)
    for group, tasks in board.groups.items():
        for task in tasks:
            task_at[task.partition("@")[0]][amount[group]] = task
    everywhere = {n: g for g, n in amount.items() if all(n in each for each in task_at.values())}
    panels = {
        name: [[(n, row.tasks[task]) for n, task in sorted(tasks.items())] for row in rows]
        for name, tasks in task_at.items()
    }
    if len(panels) > 1 and everywhere:
        average = [[(n, row.groups[g]) for n, g in sorted(everywhere.items())] for row in rows]
        panels = {f"average of {len(panels)} data sets": average, **panels}
    partly = [f"{n:g}" for n in ticks if n not in everywhere]
    notes = [f"Not averaged, as not every data set was run: {', '.join(partly)}."] if partly else []

    drawn = [score for curves in panels.values() for curve in curves for _, score in curve if score]
    bar, told = base.bars(drawn)
    facts = [base.words(base.seeds(rows), told)]
    page = Page.of(board, f"{base.metric(board)} against {short}", facts, notes)
    step = np.diff(np.log2(ticks)).min() / (1.16 * np.log2(ticks[-1] / ticks[0]))
    wide = max(len(f"{n:g}") for n in ticks) * 0.1  # inches, of a tick's name
    figure, axes = grid(
        page,
        list(panels),
        [row.method for row in rows],
        label,
        f"{base.metric(board)} (%)",
        bold=[name for name in panels if name not in task_at],
        least=wide / step,
    )
    for each, curves in zip(axes, panels.values(), strict=True):
        _curves(each, curves, ticks, bar)
    return figure


def _curves(
    axes: Axes,
    curves: Sequence[Sequence[tuple[float, Score | None]]],
    ticks: Sequence[float],
    bar: Callable[[Score], tuple[float, float]],
) -> None:
    """Accuracies (%) with their spread against amounts, a curve per method."""
    for curve, look in zip(curves, looks(len(curves)), strict=True):
        points = np.array([(n, 100 * s.mean, *bar(s)) for n, s in curve if s])
        axes.errorbar(
            points[:, 0],
            points[:, 1],
            yerr=points[:, 2:].T,
            **look,
            lw=1.2,
            ms=4,
            mew=0.8,
            elinewidth=0.8,
            capsize=1.5,
        )
    axes.set_xscale("log", base=2)
    pad = (ticks[-1] / ticks[0]) ** 0.08
    axes.set_xlim(ticks[0] / pad, ticks[-1] * pad)
    base.ticks(axes, ticks, [f"{n:g}" for n in ticks])
    axes.grid(axis="y", **GRID)


def _amounts(board: Leaderboard) -> tuple[dict[str, float], str]:
    """Group -> its number, and the unit that they share. UsageError for other groups."""
    found = {group: _AMOUNT.fullmatch(group) for group in board.groups}
    units = {match[2].strip().removesuffix("s") for match in found.values() if match}
    if None in found.values() or len(units) > 1 or not all("@" in task for task in board.tasks):
        raise UsageError(
            f"the groups of suite {board.suite} are no amounts of training images: "
            f"{', '.join(board.groups)}. This figure is for suites such as few-shot (1 shot, "
            "2 shots, ...) and medical (0.63 %, 1.25 %, ...)."
        )
    amounts = {group: float(match[1]) for group, match in found.items() if match}
    if len(amounts) < 2:
        raise UsageError(
            f"nothing to plot: all runs of suite {board.suite} are of {next(iter(amounts))}, and "
            "a line needs two. Run tasks of other groups too: "
            f"petlbench list tasks --suite {board.suite}"
        )
    return amounts, units.pop()
