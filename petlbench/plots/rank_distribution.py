"""How often each method takes each rank, were seeds, test examples (and tasks) drawn again."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from petlbench.plots import _base as base
from petlbench.plots._base import FRONT, GRID, OTHER, Array, Page, pt
from petlbench.results import Results

# Two methods may always take the same ranks and still share a letter.
_UNCORRECTED = (
    "Shades look at one method at a time; only the letters are corrected for the number of pairs."
)
_SHADES = LinearSegmentedColormap.from_list("shares", ["white", FRONT])


def draw(results: Results, over_tasks: bool = False) -> Figure:
    """The share of resamples in which each method has each rank, with median and 95% range.

    Equal methods share the better rank, as on a board. `over_tasks` draws the tasks too.
    """
    from petlbench.statistics import panel as panels
    from petlbench.statistics.bootstrap import Bootstrap

    board, rows = results.board, base.ranked(results.board)
    panel = panels.of(results)
    boot = Bootstrap(panel)
    ranks = _ranks(boot.draws(panel.ranking, over_tasks))
    levels = [
        *(["tasks"] if over_tasks else []),
        *(["seeds"] if len(panel.seeds) > 1 else []),
        "test examples",
    ]
    drawn = f"{', '.join(levels[:-1])} and {levels[-1]}" if levels[1:] else levels[0]
    facts = [f"{boot.count:,} resamples of {drawn}; dot: median, line: 95%", base.seeds(rows)]
    notes = [*base.judged(board), *([_UNCORRECTED] if any(row.letters for row in rows) else [])]
    page = Page.of(board, f"ranks by {board.ranking}", facts, notes)

    names = [base.folded(row.method, round(3.9 * page.width)) for row in rows]
    tall = np.array([0.1 + 0.155 * (name.count("\n") + 1) for name in names])
    letters = max(len(row.letters) for row in rows)
    left, right, panel_height = 0.3 + 0.09 * base.longest(names) + 0.06 * letters, 0.25, tall.sum()
    figure = page.figure(page.top + panel_height + page.bottom)
    box = (left, page.bottom, page.width - left - right, panel_height)
    axes = page.axes(figure, box)

    edges = panel_height - np.concatenate([[0], np.cumsum(tall)])
    middles = (edges[:-1] + edges[1:]) / 2
    places = np.arange(1, len(rows) + 1)
    shares = (ranks[:, :, None] == places).mean(axis=0)  # (methods, ranks)
    most = float(shares.max())
    axes.pcolormesh(
        np.arange(len(rows) + 1) + 0.5,
        edges,
        shares,
        cmap=_SHADES,
        vmin=0,
        vmax=most,
        edgecolors="face",  # or a vector file shows the seams
        linewidth=0.2,
    )
    axes.hlines(edges, 0.5, len(rows) + 0.5, **GRID)
    low, median, high = np.quantile(ranks, [0.025, 0.5, 0.975], axis=0, method="nearest")
    axes.hlines(middles, low, high, color="black", lw=1.2)
    axes.plot(median, middles, "o", color="black", ms=pt(4), clip_on=False)
    axes.set_xlim(0.5, len(rows) + 0.5)
    axes.set_ylim(0, panel_height)
    labels = [base.lettered(name, row) for name, row in zip(names, rows, strict=True)]
    axes.set_yticks(middles, labels, size=pt(10), parse_math=True)
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 1000) if len(rows) * 0.22 <= box[2] * s)
    marks = [1, *range(step, len(rows) + 1, step)] if step > 1 else places.tolist()
    base.ticks(axes, marks, [str(mark) for mark in marks])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("rank")
    for spine in axes.spines.values():
        spine.set_visible(False)
    _key(
        page.axes(figure, (left + box[2] - 1.4, page.bottom + panel_height + 0.09, 0.9, 0.1)), most
    )
    return figure


def _ranks(draws: Array) -> Array:
    """(count, methods): 1 is the best of a draw."""
    from scipy.stats import rankdata

    ranks: Array = rankdata(-draws.round(9), method="min", axis=1)
    return ranks


def _key(axes: Axes, most: float) -> None:
    """What the shades mean, from no resample to the largest share."""
    axes.imshow(np.linspace(0, 1, 64)[None], cmap=_SHADES, aspect="auto", extent=(0, 1, 0, 1))
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set(visible=True, color="#dddddd")
    for x, side, text in ((-0.06, "right", "share of resamples: 0"), (1.06, "left", f"{most:.0%}")):
        axes.text(x, 0.45, text, ha=side, va="center", size=pt(9), color=OTHER)
