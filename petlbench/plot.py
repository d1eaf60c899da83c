"""Figures of a leaderboard, fit for print; drawn without pyplot and free of its global state."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import seaborn
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from numpy.typing import NDArray

from petlbench.errors import UsageError
from petlbench.labels import label_points
from petlbench.leaderboard import Leaderboard, Row, subject

Array = NDArray[np.float64]

# Without these a file would hold the time of drawing and never be the same twice.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}
_STYLE = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # publishers refuse Type 3 fonts
    "savefig.dpi": 200,
    "svg.hashsalt": "petlbench",
}
# Blue against grey, filled against hollow, bold against plain: told apart without colour too.
_FRONT, _OTHER = seaborn.color_palette("colorblind").as_hex()[0], "#555555"
_SLASH: dict[str, Any] = {"marker": [(-0.4, -1), (0.4, 1)], "ls": "none", "c": "black", "ms": 9}
_ERASER: dict[str, Any] = {"c": "white", "lw": 3}
_WIDTH, _HEIGHT = 7.2, 4.8  # inches


def params_vs_accuracy(board: Leaderboard, path: Path | str | None = None) -> Figure:
    """What ranks (%) against trainable parameters without head, with the Pareto front.

    Error bars are one sample standard deviation over seeds. A method with no trainable
    parameters stands in a slot of its own, left of the broken logarithmic axis. Incomplete rows
    are named below the figure, not drawn. `path` ends in .png, .pdf or .svg; the same board
    always gives the same file.
    """
    path = None if path is None else Path(path)
    if path is not None and path.suffix.lower() not in _METADATA:
        raise UsageError(
            f"cannot draw to {path}: the file name must end in {', '.join(_METADATA)}."
        )
    rows = [row for row in board.rows if row.rank is not None]
    if not rows:
        raise UsageError(
            f"nothing to plot: no method of suite {board.suite} has finished every task. "
            "Type the same `petlbench run` again to finish or retry what is missing."
        )
    with style.context(["default", seaborn.axes_style("ticks"), _STYLE]):
        # Crowded labels get a taller figure rather than a smaller font.
        height = _HEIGHT + 0.12 * max(len(rows) - 10, 0)
        while (figure := _draw(board, rows, height)) is None:
            height *= 1.25
        if path is not None:
            _save(figure, path)
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of (cost, value) points that no other matches at most the cost and beats."""
    return [
        i
        for i, (cost, value) in enumerate(points)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    ]


def _draw(board: Leaderboard, rows: Sequence[Row], height: float) -> Figure | None:
    """The figure, or None if its labels do not fit into this height (inches)."""
    params = np.array([row.trainable_parameters or 0 for row in rows], dtype=float)
    scores = [row.ranking for row in rows if row.ranking]
    percent = np.array([100 * score.mean for score in scores])
    spread = np.array([100 * (score.std or 0.0) for score in scores])
    front = pareto_front(list(zip(params.tolist(), percent.tolist(), strict=True)))

    title = f"{board.suite}: {board.metric.replace('_', ' ')} against trainable parameters"
    below = textwrap.wrap(subject(board), 100)
    below += textwrap.wrap(f"{_seeds(rows)}; fingerprint {board.fingerprint}", 100)
    hidden = ", ".join(row.method for row in board.rows if row.rank is None)
    foot = textwrap.wrap(f"Incomplete, not drawn: {hidden}.", 100) if hidden else []
    figure = Figure(figsize=(_WIDTH, height))
    FigureCanvasAgg(figure)  # text is measured with it
    line = 0.19 / height  # one line of small print, in figure heights
    top = 1 - 0.42 / height - line * (len(below) + 1.6)
    bottom = 0.62 / height + line * len(foot)
    axes = figure.add_axes((0.115, bottom, 0.86, top - bottom))
    figure.text(0.02, 1 - 0.14 / height, title, va="top", size=13, weight="bold")
    small: dict[str, Any] = {"size": 9, "color": _OTHER, "va": "top", "linespacing": 1.35}
    figure.text(0.02, 1 - 0.44 / height, "\n".join(below), **small)
    figure.text(0.02, line * (len(foot) + 0.4), "\n".join(foot), **small)

    x = _parameter_axis(axes, params)
    axes.set_ylabel(f"{board.ranking} (%)")
    low, high = (percent - spread).min(), (percent + spread).max()
    margin = max(0.12 * (high - low), 0.5)
    axes.set_ylim(low - margin, high + margin)
    ticks = [tick for tick in axes.get_yticks() if low - margin <= tick <= min(100, high + margin)]
    axes.set_yticks(ticks)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)

    # Best accuracy for at most so many parameters, up to the right edge.
    steps = sorted({(x[i], percent[i]) for i in front})
    step_x, step_y = np.array([*steps, (axes.get_xlim()[1], steps[-1][1])]).T
    front_line = np.column_stack([np.repeat(step_x, 2)[1:], np.repeat(step_y, 2)[:-1]])
    axes.plot(*front_line.T, color=_FRONT, linewidth=1.2, alpha=0.6, zorder=2)
    for members, fill, colour, name, level in (
        ([i for i in range(len(rows)) if i not in front], "white", _OTHER, "dominated", 4),
        (front, _FRONT, _FRONT, "Pareto front", 5),
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
        fontsize=9,
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
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FixedFormatter(names))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("trainable parameters, without head")
    return np.where(params > 0, params, zero)


def _short(count: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size * 0.999:
            return f"{count / size:g}{unit}"
    return f"{count:g}"


def _seeds(rows: Sequence[Row]) -> str:
    counts = sorted({len(row.seeds) for row in rows})
    if counts == [1]:
        return "1 seed"
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} seeds, bars ± 1 standard deviation"


def _save(figure: Figure, path: Path) -> None:
    """Write whole or not at all: a reader never sees half a file."""
    suffix = path.suffix.lower()
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(draft, format=suffix[1:], metadata=_METADATA[suffix])
        os.replace(draft, path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):  # gone after a success; its folder may not exist
            draft.unlink()
