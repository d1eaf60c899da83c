"""Average ranks over tasks, and which methods Nemenyi's test cannot tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petlbench.errors import UsageError
from petlbench.plots import _base as base
from petlbench.plots._base import LINE, OTHER, Array, Page, pt
from petlbench.results import Results
from petlbench.verdict import p
from petlbench.wording import count

_ALPHA = 0.05
_AXIS, _CLIQUE = 0.62, 0.085  # inches: from the top to the axis, between two thick lines


def fits(results: Results) -> bool:
    return len(base.ranked(results.board)) >= 3 and len(results.board.tasks) >= 2


def draw(results: Results) -> Figure:
    """The diagram of Demšar 2006 (JMLR 7), section 3.2.4: thick lines join what may be equal."""
    from petlbench.statistics import many
    from petlbench.statistics import panel as panels

    board, rows = results.board, base.ranked(results.board)
    if not fits(results):
        raise UsageError(
            f"nothing to plot: a critical difference needs three methods and two tasks, and "
            f"{count(len(rows), 'method')} finished the "
            f"{count(len(board.tasks), 'task')} of suite {board.suite}. Run more: petlbench run "
            f"--suite {board.suite}"
        )
    scores = panels.of(results).means
    found = many.average_ranks(scores)
    order = np.argsort(found, kind="stable")
    ranks = np.asarray(found[order], dtype=float)
    difference = many.critical_difference(len(rows), len(board.tasks), _ALPHA)
    told = p(many.friedman(scores).p_value).replace(" ", "\u00a0")  # in one line
    facts = [
        f"Joined by a thick line: not told apart by Nemenyi's test at {_ALPHA:.0%}",
        f"Friedman's test of any difference: {told}",
        base.seeds(rows),
    ]
    page = Page.of(board, f"average ranks over {len(board.tasks)} tasks", facts)

    names = [
        base.folded(rows[i].method, round(3.2 * page.width)) + f"\u2002{rank:.1f}"
        for i, rank in zip(order, ranks, strict=True)
    ]
    half = -(-len(names) // 2)
    sides = [list(range(half)), list(range(half, len(names)))[::-1]]  # from the top
    tall = [[0.08 + 0.16 * (names[i].count("\n") + 1) for i in side] for side in sides]
    joined = _layers(_cliques(ranks, difference))
    first = _AXIS + 0.1 + _CLIQUE * len(joined)  # where the names begin
    panel = first + max(map(sum, tall))
    side = 0.24 + 0.082 * base.longest(names)
    top = page.top - LINE  # there is no legend
    figure = page.figure(top + panel + page.bottom - 0.45)
    axes = page.axes(figure, (side, page.bottom - 0.45, page.width - 2 * side, panel))
    start, stop = int(ranks[0]), int(np.ceil(ranks[-1]))
    right = max(stop, start + difference)
    axes.set_xlim(start, right)
    axes.set_ylim(panel, 0)  # inches from the top
    axes.set(xticks=[], yticks=[])
    axes.axis("off")

    ends: tuple[tuple[float, float, str, int], ...] = (
        (start, -1, "right", 0),
        (right, 1, "left", 1),
    )
    for edge, away, align, which in ends:
        below = first
        for i, height in zip(sides[which], tall[which], strict=True):
            middle = below + height / 2
            axes.plot(
                [ranks[i], ranks[i], edge],
                [_AXIS, middle, middle],
                color=OTHER,
                lw=0.8,
                clip_on=False,
                solid_joinstyle="miter",
            )
            axes.annotate(
                names[i],
                (edge, middle),
                xytext=(4 * away, 0),
                textcoords="offset points",
                ha=align,
                va="center",
                size=pt(10),
                linespacing=1.1,
            )
            below += height
    _scale(axes, start, stop, difference, (page.width - 2 * side) / (right - start))
    for layer, cliques in enumerate(joined):
        y = _AXIS + 0.1 + _CLIQUE * layer
        for low, high in cliques:
            look: dict[str, Any] = {"color": "black", "lw": 3, "solid_capstyle": "round"}
            axes.plot([low, high], [y, y], clip_on=False, zorder=5, **look)
    return figure


def _scale(axes: Axes, start: int, stop: int, difference: float, unit: float) -> None:
    """The axis of ranks, `unit` inches each, and the critical difference above it."""
    line: dict[str, Any] = {"color": "black", "lw": 1, "clip_on": False}
    axes.plot([start, stop], [_AXIS, _AXIS], **line)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000) if s * unit >= 0.25)
    for mark in range(start + -start % step, stop + 1, step):
        axes.plot([mark, mark], [_AXIS - 0.05, _AXIS], **line)
        axes.text(mark, _AXIS - 0.08, str(mark), ha="center", va="bottom", size=pt(9))
    middle = start + difference / 2
    axes.errorbar(middle, 0.2, xerr=difference / 2, color="black", capsize=3, lw=1.5)
    text = f"critical difference {difference:.2f}"
    axes.text(start, 0.12, text, ha="left", va="bottom", size=pt(9), color=OTHER)


def _cliques(ranks: Array, difference: float) -> list[tuple[float, float]]:
    """The largest groups of at least two sorted average ranks within the difference."""
    found: list[tuple[float, float]] = []
    last = 0
    for first in range(len(ranks)):
        end = int(np.searchsorted(ranks, ranks[first] + difference, side="right"))
        if end > max(last, first + 1):
            found.append((float(ranks[first]), float(ranks[end - 1])))
            last = end
    return found


def _layers(cliques: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The lines, in as few rows as they need without touching."""
    layers: list[list[tuple[float, float]]] = []
    for clique in cliques:
        free = next((layer for layer in layers if layer[-1][1] + 0.2 < clique[0]), None)
        if free is None:
            layers.append([clique])
        else:
            free.append(clique)
    return layers
