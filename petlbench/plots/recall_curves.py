"""How many queries of image-text retrieval find what they look for among the first K."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from petlbench.errors import UsageError
from petlbench.leaderboard import Row, metrics
from petlbench.plots import _base as base
from petlbench.plots._base import GRID, Array, Page, looks
from petlbench.plots._grid import grid
from petlbench.results import Results

_WAYS = {  # array of predictions -> title
    "text_rank_of_image": "image to text (i2t)",
    "image_rank_of_text": "text to image (t2i)",
}
_PRINTED = (1, 5, 10)  # K that papers print


def fits(results: Results) -> bool:
    return any("i2t_r1" in metrics(r["test"]) for r in results.records.values() if "test" in r)


def draw(results: Results) -> Figure:
    """Recall at K (%) against K, in both directions: mean over seeds, then over tasks.

    K goes from 1 to the number of candidates, at which every query is successful.
    """
    board = results.board
    if not fits(results):
        raise UsageError(
            f"nothing to plot: suite {board.suite} is not about retrieval. Run one that is: "
            "petlbench run --suite mini-retrieval"
        )
    kept = {row.method: _kept(results, row) for row in base.ranked(board)}
    runs = {name: found for name, found in kept.items() if found is not None}
    if not runs:
        raise UsageError(
            "nothing to plot: recall at every K is read from predictions, and of no method all "
            f"are kept in {results.store.artifacts}. Copy them there from where it was run, or "
            f"run it again: petlbench run --suite {board.suite}"
        )
    lacking = ", ".join(name for name in kept if name not in runs)
    notes = [f"Predictions are not kept, not drawn: {lacking}."] if lacking else []
    facts = [
        f"Mean of {len(board.tasks)} tasks" if len(board.tasks) > 1 else f"Task {board.tasks[0]}",
        base.seeds([row for row in base.ranked(board) if row.method in runs]),
        f"marks at K = {', '.join(map(str, _PRINTED))}",
    ]
    page = Page.of(board, "recall at K", facts, notes)

    curves = {way: [_curve(found, way) for found in runs.values()] for way in _WAYS}
    lowest = min(curve[1].min() for each in curves.values() for curve in each)
    titles, x = list(_WAYS.values()), "K, of candidates ranked by similarity"
    high = 2.6 if page.width > 6 else 1.9  # inches
    figure, panels = grid(page, titles, list(runs), x, "recall at K (%)", least=2, panel=high)
    for axes, each in zip(panels, curves.values(), strict=True):
        _panel(axes, each)
        axes.set_ylim(max(0, lowest - 4), 102)
    return figure


Kept = Mapping[str, list[Mapping[str, NDArray[Any]]]]  # task -> of each of its runs


def _kept(results: Results, row: Row) -> Kept | None:
    """The predictions behind a row; None unless all are kept."""
    found = {
        task: [results.predictions(key, task) for key in keys] for task, keys in row.runs.items()
    }
    whole: dict[str, list[Mapping[str, NDArray[Any]]]] = {
        task: [one for one in each if one is not None] for task, each in found.items()
    }
    return whole if all(len(whole[task]) == len(found[task]) for task in found) else None


def _curve(kept: Kept, way: str) -> Array:
    """(2, N): K, and recall at K (%), mean over seeds within each task, then over tasks."""
    other = next(each for each in _WAYS if each != way)  # its queries are the candidates
    candidates = max(len(run[other]) for runs in kept.values() for run in runs)
    spread = np.geomspace(1, candidates, 200).round().astype(int)
    at = np.union1d(spread, [k for k in _PRINTED if k <= candidates])
    recalls = [
        np.mean([(run[way] < at[:, None]).mean(axis=1) for run in runs], axis=0)
        for runs in kept.values()
    ]
    return np.array([at, 100 * np.mean(recalls, axis=0)])


def _panel(axes: Axes, curves: list[Array]) -> None:
    for (at, recall), look in zip(curves, looks(len(curves)), strict=True):
        marked = np.flatnonzero(np.isin(at, _PRINTED)).tolist()
        axes.plot(at, recall, **look, markevery=marked, lw=1.2, ms=5, mew=0.8, clip_on=False)
    most = max(at[-1] for at, _ in curves)
    axes.set_xscale("log")
    axes.set_xlim(0.93, most * 1.05)
    tens = [10**n for n in range(int(np.log10(most)) + 1)]
    ticks = sorted({*tens, *(k for k in _PRINTED if k <= most)})
    base.ticks(axes, ticks, [f"{tick:,}" for tick in ticks])
    axes.grid(axis="y", **GRID)
    axes.set_axisbelow(True)
