"""Names beside points that cover neither each other nor a point: placed by search, not by forces.

Deterministic, and free of overlap by construction. A box is (left, bottom, right, top), in
pixels of the figure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke
from matplotlib.text import Text
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from petlbench.plots._base import Array, pt

_FAINT = "#999999"


def label_points(
    axes: Axes, at: Array, reach: Array, names: Sequence[str], front: Sequence[int], steps: Array
) -> bool:
    """Name every point without covering a name or a point; False if there is no room.

    `at` and `steps` (the corners of the drawn front) are (x, y) in data coordinates; error bars
    reach `reach` (N, 2) below and above. The best of several orders of placing is kept.
    Deterministic, and free of overlap by construction, which placement by forces is not.
    """
    point = axes.get_figure(root=True).dpi / 72  # type: ignore[union-attr]
    labels = []
    for i, name in enumerate(names):
        weight, colour = ("bold", "black") if i in front else ("normal", "#333333")
        labels.append(
            axes.annotate(
                name,
                at[i],
                xytext=(0, 0),
                textcoords="offset points",  # so that the place holds at any resolution
                ha="center",
                va="center",
                size=pt(10),
                weight=weight,
                color=colour,
                zorder=7,
                parse_math=True,
                path_effects=[withStroke(linewidth=pt(2.5), foreground="white")],
            )
        )
    # Text.: the annotation's own extent would take in its point.
    sizes = np.array([Text.get_window_extent(label).size for label in labels]) + 2 * point
    centres = axes.transData.transform(at)
    wide = np.full(len(at), 3 * point)
    ends = [at - reach[:, :1] * (0, 1), at + reach[:, 1:] * (0, 1)]
    down, up = (np.abs(axes.transData.transform(end) - centres)[:, 1] for end in ends)
    corners = axes.transData.transform(steps)
    edges = np.hstack([np.minimum(*_ends(corners)), np.maximum(*_ends(corners))])
    low, high = np.column_stack([wide, down]), np.column_stack([wide, up])
    bars = np.hstack([centres - low, centres + high])

    apart = np.hypot(*(centres[:, None] - centres[None]).T)
    rng = np.random.default_rng(0)
    orders = [
        np.argsort(-(apart < 60 * point).sum(axis=0), kind="stable"),  # crowded points first
        np.argsort(~np.isin(np.arange(len(at)), front), kind="stable"),
        np.argsort(centres[:, 1], kind="stable"),
        np.argsort(-centres[:, 1], kind="stable"),
        *(rng.permutation(len(at)) for _ in range(5)),
    ]
    frame = np.array(axes.bbox.extents)
    tries = [_place(order, centres, sizes, frame, bars, edges, point) for order in orders]
    placed = min((one for one in tries if one), key=lambda one: one[0], default=None)
    if placed is None:
        return False
    for i, (offset, line) in enumerate(zip(*placed[1:], strict=True)):
        labels[i].set_position((offset[0] / point, offset[1] / point))
        if not np.isnan(line[0]):
            to = (line[2:] - line[:2]) / point
            arrow = {"arrowstyle": "-", "color": _FAINT, "lw": 0.8, "shrinkA": 0, "shrinkB": 3.5}
            axes.annotate(
                "", at[i], xytext=to, textcoords="offset points", arrowprops=arrow, zorder=3
            )
    return True


def stack(at: Array, heights: Array, room: float) -> Array:
    """Middles of names in one column, moved as little as keeps them apart (least squares).

    Each is `heights` tall and would best be `at`; all stay within 0 and `room`, which must be at
    least the sum of the heights. Equal ones keep their order from the top.
    """
    order = np.argsort(at[::-1], kind="stable")
    order = len(at) - 1 - order  # from the bottom; the first of equal ones highest
    below = np.cumsum(heights[order]) - heights[order] / 2  # the middles if pushed down to 0
    moved = isotonic_regression(at[order] - below).x
    placed = np.empty(len(at))
    placed[order] = below + np.clip(moved, 0, room - heights.sum())
    return placed


def _place(
    order: NDArray[np.intp],
    centres: Array,
    sizes: Array,
    frame: Array,
    bars: Array,
    edges: Array,
    point: float,
) -> tuple[float, Array, Array] | None:
    """Total cost, offset of each label from its point, and leader lines (NaN: none needed).

    One label after the other takes its cheapest free place; then, four times, each may move to a
    better one now that the others are there. None if one finds no free place.
    """
    angle = np.deg2rad(np.arange(0, 360, 15))
    gap = 6 * point * 1.18 ** np.arange(20)  # 6 to 139 points between marker's middle and name
    angles, gaps = (grid.ravel() for grid in np.meshgrid(angle, gap))
    ways = np.column_stack([np.cos(angles), np.sin(angles)]).round(9)
    markers = np.hstack([centres - 4.5 * point, centres + 4.5 * point])
    clear = 2 * point * np.array([-1, -1, 1, 1])  # a leader that grazes a point seems to name it
    boxes, threads = np.full((len(order), 4), np.nan), np.full((len(order), 4), np.nan)
    costs, offsets = np.zeros(len(order)), np.zeros((len(order), 2))
    for i in np.tile(order, 5):
        others = np.arange(len(order)) != i
        offset = gaps[:, None] * ways + np.sign(ways) * sizes[i] / 2
        places = np.hstack([centres[i] + offset - sizes[i] / 2, centres[i] + offset + sizes[i] / 2])
        free = (places[:, :2] >= frame[:2]).all(axis=1) & (places[:, 2:] <= frame[2:]).all(axis=1)
        free &= ~_overlap(places, np.vstack([boxes[others], markers])).any(axis=1)
        # what follows takes longer, so only for these
        places, offset, angle, gap = (each[free] for each in (places, offset, angles, gaps))
        near = np.clip(centres[i], places[:, :2], places[:, 2:])
        lines = np.hstack([np.broadcast_to(centres[i], near.shape), near])
        free = ~_strike(lines, boxes[others]).any(axis=1)
        free &= ~_strike(threads[others], places).any(axis=0)
        if not free.any():
            return None
        cost = gap / point + (gap / point / 20) ** 2  # a long leader is hard to follow
        cost += 3 * np.abs(np.sin(2 * angle))  # straight beside or above reads best
        cost += 120 * (_overlap(places, bars).sum(axis=1) + _overlap(places, edges).sum(axis=1))
        cost += 200 * _strike(lines, markers[others] + clear).sum(axis=1)
        cost += 40 * _cross(lines, threads[others]).sum(axis=1)
        # A name nearer to another point would be taken for that point's.
        there = np.clip(centres[None], places[:, None, :2], places[:, None, 2:])
        closest = np.hypot(*(there - centres)[:, others].T).min(axis=0, initial=np.inf)
        cost += 1.5 * np.maximum(gap - closest, 0) / point
        best = int(np.argmin(np.where(free, cost, np.inf)))
        boxes[i], offsets[i], costs[i] = places[best], offset[best], cost[best]
        threads[i] = lines[best] if gap[best] > 11 * point else np.nan
    return float(costs.sum()), offsets, threads


def _ends(corners: Array) -> tuple[Array, Array]:
    return corners[:-1], corners[1:]


# Comparisons with NaN are false: what is not placed yet is in nobody's way.


def _overlap(a: Array, b: Array) -> NDArray[np.bool_]:
    """Which boxes of a share area or an edge with which boxes of b: (len(a), len(b))."""
    first, second = a[:, None], b[None]
    below, above = first[..., :2] <= second[..., 2:], second[..., :2] <= first[..., 2:]
    both = below & above
    return np.asarray(both[..., 0] & both[..., 1])  # far faster than .all(axis=2)


def _strike(lines: Array, boxes: Array) -> NDArray[np.bool_]:
    """Which lines (x0, y0, x1, y1) pass through which boxes: (len(lines), len(boxes))."""
    start = lines[:, None, :2]
    run = lines[:, None, 2:] - start + 1e-9  # never divides by zero
    a, b = (boxes[None, :, :2] - start) / run, (boxes[None, :, 2:] - start) / run
    enters, leaves = np.minimum(a, b), np.maximum(a, b)
    enter = np.maximum(enters[..., 0], enters[..., 1])
    leave = np.minimum(leaves[..., 0], leaves[..., 1])
    return np.asarray((enter < leave) & (leave > 0) & (enter < 1))


def _cross(a: Array, b: Array) -> NDArray[np.bool_]:
    """Which lines of a cross which lines of b: (len(a), len(b))."""
    first, second = a[:, None], b[None]

    def side(line: Array, spot: Array) -> Array:
        along, to = line[..., 2:] - line[..., :2], spot - line[..., :2]
        return np.asarray(along[..., 0] * to[..., 1] - along[..., 1] * to[..., 0])

    parted = side(first, second[..., :2]) * side(first, second[..., 2:]) < 0
    return np.asarray(parted & (side(second, first[..., :2]) * side(second, first[..., 2:]) < 0))
