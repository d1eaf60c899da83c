"""What ranks against trainable parameters, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petlbench.leaderboard import Leaderboard, Row
from petlbench.plots import _base as base
from petlbench.plots._base import FRONT, GRID, OTHER, Array, Page, pt
from petlbench.plots._labels import label_points
from petlbench.results import Results

_SLASH: dict[str, Any] = {"marker": [(-0.4, -1), (0.4, 1)], "ls": "none", "c": "black", "ms": 9}
_ERASER: dict[str, Any] = {"c": "white", "lw": 3}
_HEIGHT = 4.8  # inches


def draw(results: Results) -> Figure:
    """What ranks (%) against trainable parameters without head, with the Pareto front.

    Error bars are one sample standard deviation over seeds. A method with no trainable
    parameters stands in a slot of its own, left of the broken logarithmic axis.
    """
    rows = base.ranked(results.board)
    # Crowded labels get a taller figure rather than a smaller font.
    height = _HEIGHT + 0.12 * max(len(rows) - 10, 0)
    while (figure := _against_parameters(results.board, rows, height)) is None:
        height *= 1.25
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of (cost, value) points that no other matches at most the cost and beats."""
    return [
        i
        for i, (cost, value) in enumerate(points)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    ]


def _against_parameters(board: Leaderboard, rows: Sequence[Row], height: float) -> Figure | None:
    """The figure, or None if its labels do not fit into this height (inches)."""
    params = np.array([row.trainable_parameters or 0 for row in rows], dtype=float)
    scores = [row.ranking for row in rows if row.ranking]
    percent = np.array([100 * score.mean for score in scores])
    spread = np.array([100 * (score.std or 0.0) for score in scores])
    front = pareto_front(list(zip(params.tolist(), percent.tolist(), strict=True)))

    about = f"{base.metric(board)} against trainable parameters"
    page = Page.of(board, about, [base.seeds(rows, bars=True)])
    figure = page.figure(height)
    box = (0.828, page.bottom, page.width - 1.008, height - page.top - page.bottom)
    axes = page.axes(figure, box)

    x = _parameter_axis(axes, params)
    axes.set_ylabel(f"{board.ranking} (%)")
    low, high = (percent - spread).min(), (percent + spread).max()
    margin = max(0.12 * (high - low), 0.5)
    axes.set_ylim(low - margin, high + margin)
    ticks = [tick for tick in axes.get_yticks() if low - margin <= tick <= min(100, high + margin)]
    axes.set_yticks(ticks)
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)

    # Best accuracy for at most so many parameters, up to the right edge.
    steps = sorted({(x[i], percent[i]) for i in front})
    step_x, step_y = np.array([*steps, (axes.get_xlim()[1], steps[-1][1])]).T
    front_line = np.column_stack([np.repeat(step_x, 2)[1:], np.repeat(step_y, 2)[:-1]])
    axes.plot(*front_line.T, color=FRONT, linewidth=1.2, alpha=0.6, zorder=2)
    for members, fill, colour, name, level in (
        ([i for i in range(len(rows)) if i not in front], "white", OTHER, "dominated", 4),
        (front, FRONT, FRONT, "Pareto front", 5),
    ):
        if members:
            dots = (x[members], percent[members])
            bars = np.where(spread[members] > 0, spread[members], np.nan)
            axes.errorbar(
                *dots, yerr=bars, fmt="none", color=colour, elinewidth=1, capsize=2.5, zorder=level
            )
            axes.plot(*dots, "o", markersize=6.5, color=colour, mfc=fill, label=name, zorder=level)
    axes.legend(
        reverse=True,
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=2,
        frameon=False,
        fontsize=pt(9),
        handletextpad=0.3,
        borderaxespad=0.1,
    )
    names = [row.method for row in rows]
    at = np.column_stack([x, percent])
    return figure if label_points(axes, at, spread, names, front, front_line) else None


def _parameter_axis(axes: Axes, params: Array) -> Array:
    """Logarithmic axis over the positive counts, a slot for 0 if needed; where each point goes."""
    positive = params[params > 0] if params.any() else np.array([1e3])
    low, high = np.log10(positive.min()), np.log10(positive.max())
    # At least 0.8 decades, so that two ticks of 1, 2, 5 are always in sight.
    pad = max(0.1 * (high - low), (0.8 - (high - low)) / 2)
    low, high = low - pad, high + pad
    factors = (1,) if high - low > 2.2 else (1, 2, 5)
    ticks = [f * 10.0**k for k in range(int(low) - 1, int(high) + 1) for f in factors]
    ticks = [tick for tick in ticks if 10**low <= tick <= 10**high and params.any()]
    names = [_short(tick) for tick in ticks]
    left, zero = low, 0.0
    if (params == 0).any():
        slot = 0.15 * (high - low)
        left, zero = low - slot, 10 ** (low - 0.5 * slot)
        ticks, names = [zero, *ticks], ["0", *names]
        at = slot / (high - left)
        for width, look in ((0.005, _ERASER), (0.006, _SLASH)):
            axes.plot(
                [at - width, at + width],
                [0, 0],
                transform=axes.transAxes,
                clip_on=False,
                zorder=6,
                **look,
            )
    axes.set_xscale("log")
    axes.set_xlim(10**left, 10**high)
    base.ticks(axes, ticks, names)
    axes.set_xlabel("trainable parameters, without head")
    return np.where(params > 0, params, zero)


def _short(count: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size * 0.999:
            return f"{count / size:g}{unit}"
    return f"{count:g}"
