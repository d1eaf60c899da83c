"""A line per method between two of its values, with the difference in numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from petlbench.plots._base import FRONT, GRID, Array, Page, folded, longest, pt
from petlbench.wording import visible


def dumbbells(
    page: Page,
    values: Mapping[str, Array],
    marks: Sequence[tuple[str, dict[str, Any]]],
    label: str,
    heading: str,
    order: int,
) -> Figure:
    """A line per method from its first mark to its second, whose difference stands beside it.

    The methods are ordered by the mark of index `order`, best first.
    """
    columns = len(marks) if page.width > 6 else 1  # of the legend
    page = replace(page, keys=-(-len(marks) // columns))
    values = dict(sorted(values.items(), key=lambda item: -item[1][order]))
    names = [folded(name, round(3.9 * page.width)) for name in values]
    table = np.array(list(values.values()))  # (methods, marks)
    tall = np.array([0.14 + 0.16 * (name.count("\n") + 1) for name in names])
    left, right, panel = 0.3 + 0.09 * longest(names), 0.7, 0.1 + tall.sum()
    figure = page.figure(page.top + panel + page.bottom)
    box = (left, page.bottom, page.width - left - right, panel)
    axes = page.axes(figure, box)
    y = panel - 0.05 - np.cumsum(tall) + tall / 2
    axes.set_ylim(0, panel)
    low, high = np.nanmin(table), np.nanmax(table)
    margin = max(0.06 * (high - low), 0.3)
    axes.set_xlim(low - margin, high + margin)
    axes.hlines(y, table[:, 0], table[:, 1], color=FRONT, lw=1.6, alpha=0.6, zorder=2)
    for (name, look), column in zip(marks, table.T, strict=True):
        axes.plot(column, y, ls="", label=name, **look)
    axes.set_yticks(y, names, size=pt(10))
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(**GRID)
    axes.set_axisbelow(True)
    axes.set_xlabel(visible(label))
    beside: dict[str, Any] = {
        "transform": axes.get_yaxis_transform(),
        "ha": "right",
        "size": pt(10),
    }
    edge = 1 + (right - 0.12) / box[2]
    for middle, (first, second) in zip(y, table[:, :2], strict=True):
        gap = "–" if np.isnan(second - first) else f"{second - first:+.1f}"
        axes.text(edge, middle, gap, va="center", **beside)
    axes.text(edge, panel + 0.05, heading, va="bottom", **{**beside, "size": pt(9)})
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=columns,
        frameon=False,
        fontsize=pt(9),
        handletextpad=0.1,
        columnspacing=1,
        borderaxespad=0.1,
    )
    return figure
