"""Every task and method: the difference to a baseline, in percentage points."""

from __future__ import annotations

import numpy as np
import seaborn
from matplotlib.figure import Figure
from seaborn.utils import relative_luminance

from petlbench.errors import unknown
from petlbench.plots import _base as base
from petlbench.plots._base import Page, pt
from petlbench.results import Results
from petlbench.wording import visible

_USUAL = "linear"  # the simplest thing to do
_DARK = 0.179  # luminance at which black and white have one contrast (WCAG 2.1), 4.6
_NARROW, _WIDE = 0.27, 0.6  # inches, of a cell; what does not fit goes into a block below


def draw(results: Results, baseline: str = "") -> Figure:
    """A row per method, best first; a column for what ranks and for each task.

    Blue is better and red is worse, darker is further from the baseline, and the sign says to
    which side: so it reads in grey too. Of one method alone the scores are shown.

    Args:
        results: The comparison.
        baseline: The method that is subtracted; linear if it is there, else the best one.
    """
    board, rows = results.board, base.ranked(results.board)
    names = [row.method for row in rows]
    if baseline and baseline not in names:
        raise unknown("baseline", baseline, names)
    chosen = baseline or (_USUAL if _USUAL in names else names[0])
    own = names.index(chosen)
    columns = [visible(name) for name in (board.ranking, *board.tasks)]
    scores = [[row.ranking, *(row.tasks[task] for task in board.tasks)] for row in rows]
    values = np.array([[base.percent(score) for score in line] for line in scores])
    gaps = values - values[own]
    texts = [[_signed(gap) for gap in line] for line in gaps]
    texts[own] = [f"{value:.1f}" for value in values[own]]

    about, unit = f"{base.metric(board)} of each task", "%"
    if len(rows) > 1:
        about += f", minus that of {chosen}"
        unit = f"percentage points; the row of {chosen}: %"
    facts = [f"{base.seeds(rows)}, {unit}"]
    page = Page.of(board, about, facts)
    labels = [base.folded(name, 26) for name in names]
    left = 0.3 + 0.087 * base.longest(labels)
    room = page.width - left - 0.12
    blocks = -(-len(columns) // int(room / _NARROW))
    parts = np.array_split(np.arange(len(columns)), blocks)
    cell = min(_WIDE, room / len(parts[0]))
    size = min(9, 21.5 * cell)  # of five digits in a cell
    tall = 0.09 + 0.155 * max(label.count("\n") + 1 for label in labels)
    heads = 0.15 + 0.076 * max(map(len, columns))  # the columns' names, upright
    height = page.top - 0.3 + blocks * (heads + tall * len(rows)) + page.bottom - 0.45
    figure = page.figure(height)
    # One outlier does not fade the rest.
    reach = 1.6 * max(float(np.percentile(np.abs(gaps), 95)), 1.0)
    top = height - page.top + 0.3
    for part in parts:
        top -= heads + tall * len(rows)
        box = (left, top, cell * len(part), tall * len(rows))
        axes = page.axes(figure, box)
        seaborn.heatmap(
            gaps[:, part],
            ax=axes,
            cmap="vlag_r",
            vmin=-reach,
            vmax=reach,
            annot=np.array(texts)[:, part],
            fmt="",
            annot_kws={"size": pt(size)},
            cbar=False,
            linewidths=0.8,
        )
        shades = axes.collections[0].get_facecolor()
        for text, shade in zip(axes.texts, shades, strict=True):
            text.set_color("white" if relative_luminance(shade) < _DARK else "black")
        axes.xaxis.tick_top()
        axes.set_xticks(np.arange(len(part)) + 0.5, [columns[i] for i in part], rotation=90)
        axes.set_yticks(np.arange(len(rows)) + 0.5, labels, rotation=0)
        axes.tick_params(length=0, labelsize=pt(9))
        for label, name in zip(axes.get_yticklabels(), names, strict=True):
            label.set_fontweight("bold" if name == chosen else "normal")
    return figure


def _signed(gap: float) -> str:
    return f"{gap:+.1f}".replace("-", "−")
