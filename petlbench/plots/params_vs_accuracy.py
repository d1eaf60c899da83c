"""What ranks against a cost, such as trainable parameters, with the Pareto front."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petlbench.errors import UsageError, unknown
from petlbench.leaderboard import Leaderboard, Row
from petlbench.plots import _base as base
from petlbench.plots._base import FRONT, GRID, OTHER, Array, Page, pt
from petlbench.plots._cost import COUNTS, Units, pareto_front, short, ticks
from petlbench.plots._labels import label_points
from petlbench.results import Results
from petlbench.wording import visible


@dataclass(frozen=True)
class Cost:
    """What may stand on the x axis."""

    name: str
    label: str  # of the axis
    of: Callable[[Results, Row], float | None]
    units: Units  # of the numbers at the axis
    where: Callable[[Results, Sequence[Row]], list[str]] = lambda results, rows: []  # measured


def _machines(results: Results, rows: Sequence[Row]) -> list[str]:
    """Where it was measured; a warning if in several places."""
    found = set()
    for row in rows:
        for record in results.of(row):
            made = record["environment"]
            found.add(str(made.get("gpu") or made.get("processor") or made["device"]))
    told = ", ".join(sorted(found))
    if len(found) > 1:
        return [f"Measured on different machines, so not comparable among them: {told}."]
    return [f"Measured on {told}."] if found else []


def _here(results: Results, rows: Sequence[Row]) -> list[str]:
    from petlbench.experiment import processor

    return [f"Measured on one core of {processor()}, when first drawn."]


def _added_latency(results: Results, row: Row) -> float:
    from petlbench.speed import added_latency  # only now: it takes torch

    return added_latency(results.of(row)[0])


_BYTES = ((1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1, " B"))
COSTS = {
    "parameters": Cost(
        "trainable parameters",
        "trainable parameters, without head",
        lambda _, row: row.trainable_parameters,
        COUNTS,
    ),
    "parameters-with-head": Cost(
        "trainable parameters with head",
        "trainable parameters, with head",
        lambda _, row: row.trainable_parameters_with_head,
        COUNTS,
    ),
    "inference-parameters": Cost(
        "parameters left at inference",
        "parameters beside backbone and head after merging",
        lambda _, row: row.inference_parameters,
        COUNTS,
    ),
    "added-flops": Cost(
        "added compute",
        "added floating-point operations per image, after merging",
        lambda _, row: row.added_flops,
        ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "K"), (1, "")),
    ),
    "stored-bytes": Cost(
        "stored size",
        "stored for one task, beside the backbone",
        lambda _, row: row.stored_bytes,
        _BYTES,
    ),
    "train-seconds": Cost(
        "training time",
        "training time of all tasks, one seed (s)",
        lambda _, row: row.train_seconds,
        ((1, ""),),
        where=_machines,
    ),
    "peak-memory": Cost(
        "peak memory",
        "peak memory of training and testing",
        lambda _, row: row.peak_bytes,
        _BYTES,
        where=_machines,
    ),
    "added-latency": Cost(
        "added latency",
        "added latency of one image, after merging (% of the backbone's)",
        _added_latency,
        ((1, "%"),),
        where=_here,
    ),
}

_SLASH: dict[str, Any] = {"marker": [(-0.4, -1), (0.4, 1)], "ls": "none", "c": "black", "ms": 9}
_ERASER: dict[str, Any] = {"c": "white", "lw": 3}
_HEIGHT = 4.8  # inches
_LABEL_WIDTH = 24  # characters; longer names are wrapped


def draw(results: Results, x: str = "parameters") -> Figure:
    """What ranks (%) against a cost, with the Pareto front.

    A method that costs nothing stands in a slot of its own, left of the broken logarithmic axis.
    Methods whose cost was not measured are named below.

    Args:
        results: The comparison.
        x: The cost, a name of `COSTS`.
    """
    if x not in COSTS:
        raise unknown("x of params-vs-accuracy", x, COSTS)
    cost, board = COSTS[x], results.board
    found = {row.method: cost.of(results, row) for row in base.ranked(board)}
    costs = {method: value for method, value in found.items() if value is not None}
    rows = [row for row in base.ranked(board) if row.method in costs]
    if not rows:
        raise UsageError(
            f"nothing to plot: no record of suite {board.suite} tells of its {cost.name}. "
            f"Choose another x: {', '.join(COSTS)}."
        )
    lacking = [method for method in found if method not in costs]
    notes = [f"No {cost.name} was measured, not drawn: {', '.join(lacking)}."] if lacking else []
    notes += cost.where(results, rows)
    # Crowded labels get a taller figure rather than a smaller font.
    height = _HEIGHT + 0.15 * max(len(rows) - 10, 0)
    while (figure := _against(cost, costs, board, rows, notes, height)) is None:
        height *= 1.25
    return figure


def _against(
    cost: Cost,
    found: Mapping[str, float],
    board: Leaderboard,
    rows: Sequence[Row],
    notes: Sequence[str],
    height: float,
) -> Figure | None:
    """The figure, or None if its labels do not fit into this height (inches)."""
    costs = np.array([found[row.method] for row in rows], dtype=float)
    scores = [row.ranking for row in rows if row.ranking]
    percent = np.array([100 * score.mean for score in scores])
    bar, told = base.bars(scores)
    reach = np.array([bar(score) for score in scores])
    spread = np.nan_to_num(reach)
    front = pareto_front(list(zip(costs.tolist(), percent.tolist(), strict=True)))

    facts = [base.words(base.seeds(rows), told)]
    about = f"{base.metric(board)} against {cost.name}"
    page = Page.of(board, about, facts, [*base.judged(board), *notes])
    figure = page.figure(height)
    box = (0.828, page.bottom, page.width - 1.008, height - page.top - page.bottom)
    axes = page.axes(figure, box)

    x = _cost_axis(axes, costs, cost)
    axes.set_ylabel(visible(f"{board.ranking} (%)"))
    low, high = (percent - spread[:, 0]).min(), (percent + spread[:, 1]).max()
    margin = max(0.12 * (high - low), 0.5)
    axes.set_ylim(low - margin, high + margin)
    marks = [mark for mark in axes.get_yticks() if low - margin <= mark <= min(100, high + margin)]
    axes.set_yticks(marks)
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)

    # Best accuracy for at most so much, up to the right edge.
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
            axes.errorbar(
                *dots,
                yerr=reach[members].T,
                fmt="none",
                color=colour,
                elinewidth=1,
                capsize=2.5,
                zorder=level,
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
    names = [base.lettered(base.folded(row.method, _LABEL_WIDTH), row) for row in rows]
    at = np.column_stack([x, percent])
    return figure if label_points(axes, at, spread, names, front, front_line) else None


def _cost_axis(axes: Axes, costs: Array, cost: Cost) -> Array:
    """Logarithmic axis over what is not 0, a slot for 0 if needed; where each point goes."""
    positive = costs[costs > 0] if costs.any() else np.array([1e3])
    low, high = np.log10(positive.min()), np.log10(positive.max())
    # At least 0.8 decades, so that two ticks of 1, 2, 5 are always in sight.
    pad = max(0.1 * (high - low), (0.8 - (high - low)) / 2)
    low, high = low - pad, high + pad
    at = ticks(10**low, 10**high) if costs.any() else []
    names = [short(each, cost.units) for each in at]
    left, zero = low, 0.0
    if (costs <= 0).any():
        slot = 0.15 * (high - low)
        left, zero = low - slot, 10 ** (low - 0.5 * slot)
        at, names = [zero, *at], ["0", *names]
        broken = slot / (high - left)
        for width, look in ((0.005, _ERASER), (0.006, _SLASH)):
            axes.plot(
                [broken - width, broken + width],
                [0, 0],
                transform=axes.transAxes,
                clip_on=False,
                zorder=6,
                **look,
            )
    axes.set_xscale("log")
    axes.set_xlim(10**left, 10**high)
    base.ticks(axes, at, names)
    axes.set_xlabel(cost.label)
    return np.where(costs > 0, costs, zero)
