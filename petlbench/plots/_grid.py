"""A grid of small panels that share a legend below."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from petlbench.plots._base import Page, pt
from petlbench.plots._legend import Legend
from petlbench.wording import visible


def grid(
    page: Page,
    titles: Sequence[str],
    names: Sequence[str],
    x: str,
    y: str,
    bold: Sequence[str] = (),
    least: float = 0,
    panel: float = 1.8,
) -> tuple[Figure, list[Axes]]:
    """An empty panel for each title; below, the names of lines that look as `looks` says.

    Args:
        page: Where they stand.
        titles: Of panels; `bold` ones are means of others.
        names: Of methods.
        x: What the x axes show.
        y: What the y axes show.
        bold: Titles.
        least: Inches that a panel must be wide, unless it stands alone.
        panel: Inches that it is high.
    """
    legend = Legend.of(page, names)
    # inches, as all that follows
    left, gap, below = 0.72, 0.48, 0.6
    room = page.width - left - 0.12 + gap
    columns = min(len(titles), int(room / (1.5 + gap)) if len(titles) > 4 else 2)
    while columns > 1 and room / columns - gap <= least:
        columns -= 1
    lines = -(-len(titles) // columns)
    width = room / columns - gap
    inner = lines * panel + (lines - 1) * below
    height = page.top + inner + page.bottom + legend.height
    figure = page.figure(height)
    found = []
    for i, title in enumerate(titles):
        across = left + (i % columns) * (width + gap)
        up = page.bottom + legend.height + (lines - 1 - i // columns) * (panel + below)
        axes = page.axes(figure, (across, up, width, panel))
        weight = "bold" if title in bold else "normal"
        axes.set_title(visible(title), size=pt(10), loc="left", weight=weight)
        axes.tick_params(labelsize=pt(9))
        found.append(axes)
    middle = (left + 0.5 * (page.width - left - 0.12)) / page.width
    low = page.bottom + legend.height
    figure.text(middle, (low - 0.42) / height, visible(x), ha="center", size=pt(10))
    at = (0.14 / page.width, (low + inner / 2) / height)
    figure.text(*at, visible(y), rotation=90, va="center", size=pt(10))
    legend.draw(figure, (low - 0.52) / height)
    return figure, found
