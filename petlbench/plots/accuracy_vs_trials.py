"""The best validation score so far against the number of trials of a search."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from petlbench.leaderboard import Record
from petlbench.plots import _base as base
from petlbench.plots._base import GRID, Array, Page, looks, pt
from petlbench.plots._labels import stack
from petlbench.plots._search import judged, rules, trials
from petlbench.results import Results
from petlbench.wording import visible


def fits(results: Results) -> bool:
    return base.tells("search", results)


def draw(results: Results) -> Figure:
    """The best validation score so far (%) against the number of trials, mean of tasks.

    A line starts at the first trial by which every task has a score.
    """
    board = results.board
    searched, lacking = base.telling("search", results, "--search 20")
    budget = rules(searched)  # first: curves of different lengths have no mean
    best = {name: 100 * base.mean_of_tasks(runs, _best_so_far) for name, runs in searched.items()}
    names = sorted(best, key=lambda name: -best[name][-1])
    count = len(best[names[0]])
    page = Page.of(
        board,
        f"best validation {judged(searched)} against trials",
        [budget, base.seeds([row for row in base.ranked(board) if row.method in best])],
        lacking,
    )
    wrapped = [base.folded(name, round(3.6 * page.width)) for name in names]
    right = 0.42 + 0.085 * base.longest(wrapped)  # inches, for the names
    tall = np.array([0.06 + 0.16 * (name.count("\n") + 1) for name in wrapped])
    panel = max(3.1, 1.15 * tall.sum())
    figure = page.figure(page.top + panel + page.bottom)
    box = (0.8, page.bottom, page.width - 0.8 - right, panel)
    axes = page.axes(figure, box)

    numbers = np.arange(1, count + 1)
    curves = np.array([best[name] for name in names])
    low, high = np.nanmin(curves), np.nanmax(curves)
    margin = max(0.06 * (high - low), 0.3)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(1 - 0.02 * count, count + 0.02 * count)
    inch = panel / (high - low + 2 * margin)  # of a percent point
    ends = (curves[:, -1] - (low - margin)) * inch
    places = stack(ends, tall, panel)
    for curve, look, name, end, place in zip(
        curves, looks(len(names)), wrapped, ends, places, strict=True
    ):
        axes.step(numbers, curve, where="post", lw=1.4, **{**look, "marker": ""})
        axes.plot(count, curve[-1], **{**look, "ls": ""}, ms=6, clip_on=False, zorder=5)
        axes.plot(
            [1 + 0.06 / box[2], 1 + 0.3 / box[2]],
            [end / panel, place / panel],
            transform=axes.transAxes,
            clip_on=False,
            color=look["color"],
            lw=0.8,
        )
        axes.text(
            *(1 + 0.34 / box[2], place / panel, name),
            transform=axes.transAxes,
            va="center",
            size=pt(9),
            linespacing=1.1,
        )
    most = max(4, min(12, int(2.6 * box[2])))  # numbers at the axis
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if count <= most * s)
    marks = sorted({1, *range(step, count + 1, step)} - ({2} if step > 2 else set()))
    base.ticks(axes, marks, [str(mark) for mark in marks])
    first = "the first being the default setting" if box[2] > 3.3 else "first the default"
    axes.set_xlabel(f"trials a task, {first}")
    axes.set_ylabel(visible(f"validation {judged(searched)} (%), mean of tasks"), size=pt(10))
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)
    return figure


def _best_so_far(record: Record) -> Array:
    return np.fmax.accumulate(trials(record))
