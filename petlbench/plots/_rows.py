"""Panels side by side in which every method has a line, and the names at the left."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petlbench.leaderboard import Row
from petlbench.plots import _base as base
from petlbench.plots._base import GRID, Array, Page, pt


def panels(
    page: Page, rows: Sequence[Row], titles: Sequence[str]
) -> tuple[Figure, list[Axes], Array]:
    """An empty panel for each title, the first one's bold; and the height of each row in them."""
    names = [base.folded(row.method, 26) for row in rows]
    left = 0.3 + 0.087 * base.longest(names) + (0.3 if any(row.letters for row in rows) else 0)
    tall = np.array([0.1 + 0.155 * (name.count("\n") + 1) for name in names])
    # inches, as all that follows
    gap, below, panel = 0.22, 0.42, 0.1 + tall.sum()
    room = page.width - left - 0.2 + gap
    columns = max(1, min(len(titles), int(room / (0.95 + gap))))
    lines = -(-len(titles) // columns)
    width = room / columns - gap
    fitting = max(6, int(width / 0.09))  # letters
    heads = [base.folded(title, fitting, break_long_words=False) for title in titles]
    size = min(10, (width + gap - 0.08) / (0.0088 * base.longest(heads)))
    head = 0.14 + 0.16 * (1 + max(text.count("\n") for text in heads))
    above = page.top - 0.35
    height = above + lines * (head + panel + below) + page.bottom - 0.6
    figure = page.figure(height)
    y = panel - 0.05 - np.cumsum(tall) + tall / 2
    found = []
    for i, title in enumerate(heads):
        across, down = i % columns, i // columns
        bottom = height - above - (down + 1) * (head + panel) - down * below
        axes = page.axes(figure, (left + across * (width + gap), bottom, width, panel))
        axes.set_title(title, size=pt(size), loc="left", weight="normal" if i else "bold")
        axes.set_ylim(0, panel)
        shown = [base.lettered(name, row) for name, row in zip(names, rows, strict=True)]
        axes.set_yticks(y, [""] * len(rows) if across else shown, parse_math=True)
        axes.tick_params(axis="y", length=0, labelsize=pt(9))
        axes.tick_params(axis="x", labelsize=pt(9))
        axes.locator_params(axis="x", nbins=max(2, int(width / 0.45)))
        axes.spines["left"].set_visible(False)
        axes.grid(**GRID)
        axes.set_axisbelow(True)
        found.append(axes)
    return figure, found, y
