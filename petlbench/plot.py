"""Figures of a leaderboard, fit for print; drawn without pyplot and free of its global state.

Every figure is a function (board, records) -> Figure, listed in FIGURES. Only complete rows are
drawn; the others are named below the figure. The same input always gives the same file.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import seaborn
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from numpy.typing import NDArray

from petlbench.errors import UsageError, unknown
from petlbench.labels import label_points, stack
from petlbench.leaderboard import Leaderboard, Record, Row, Score, metrics, subject

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
_LINE = 0.19  # inches, a line of small print
_COLOURS = [seaborn.color_palette("colorblind").as_hex()[i] for i in (0, 3, 2, 4, 1, 9, 5)]
_MARKERS = "os^DvPX<>*h"  # with 7 colours and 4 dashes, no two of 308 lines look the same
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


def draw(
    kind: str, board: Leaderboard, records: Sequence[Record] = (), path: Path | str | None = None
) -> Figure:
    """The figure of that kind (a name of FIGURES), written to `path` if there is one.

    `records` are those that the board was made of (others are ignored); figures of searches and
    peeks need them. `path` ends in .png, .pdf or .svg. UsageError where there is nothing to draw.
    """
    if kind not in FIGURES:
        raise unknown("plot", kind, FIGURES)
    path = None if path is None else Path(path)
    if path is not None and path.suffix.lower() not in _METADATA:
        raise UsageError(
            f"cannot draw to {path}: the file name must end in {', '.join(_METADATA)}."
        )
    if not _ranked(board):
        raise UsageError(
            f"nothing to plot: no method of suite {board.suite} has finished every task. "
            "Type the same `petlbench run` again to finish or retry what is missing."
        )
    with style.context(["default", seaborn.axes_style("ticks"), _STYLE]):
        figure = FIGURES[kind](board, records)
        if path is not None:
            _save(figure, path)
    return figure


def params_vs_accuracy(board: Leaderboard, path: Path | str | None = None) -> Figure:
    """`draw` of that figure, which needs no records."""
    return draw("params-vs-accuracy", board, path=path)


# --- what ranks, against trainable parameters


def _params_vs_accuracy(board: Leaderboard, _: Sequence[Record]) -> Figure:
    """What ranks (%) against trainable parameters without head, with the Pareto front.

    Error bars are one sample standard deviation over seeds. A method with no trainable
    parameters stands in a slot of its own, left of the broken logarithmic axis.
    """
    rows = _ranked(board)
    # Crowded labels get a taller figure rather than a smaller font.
    height = _HEIGHT + 0.12 * max(len(rows) - 10, 0)
    while (figure := _against_parameters(board, rows, height)) is None:
        height *= 1.25
    return figure


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of (cost, value) points that no other matches at most the cost and beats."""
    return [
        i
        for i, (cost, value) in enumerate(points)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    ]


def _against_parameters(board: Leaderboard, rows: Sequence[Row], height: float) -> Figure | None:
    """The figure, or None if its labels do not fit into this height (inches)."""
    params = np.array([row.trainable_parameters or 0 for row in rows], dtype=float)
    scores = [row.ranking for row in rows if row.ranking]
    percent = np.array([100 * score.mean for score in scores])
    spread = np.array([100 * (score.std or 0.0) for score in scores])
    front = pareto_front(list(zip(params.tolist(), percent.tolist(), strict=True)))

    about = f"{_metric(board)} against trainable parameters"
    text = _Text.of(board, about, [_seeds(rows, bars=True)])
    figure = text.on(height)
    bottom, top = text.bottom / height, 1 - text.top / height
    axes = figure.add_axes((0.115, bottom, 0.86, top - bottom))

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


# --- what is measured, against the amount of training images

_AMOUNT = re.compile(r"(?=.*[1-9])(\d+(?:\.\d+)?)\s*(\D*)")  # more than 0: the axis is logarithmic
_UNITS = {  # without the plural's s -> in the title, at the axis
    "shot": ("shots", "training images a class (shots)"),
    "%": ("share of training images", "share of the training images (%)"),
}


def _accuracy_vs_shots(board: Leaderboard, _: Sequence[Record]) -> Figure:
    """The metric (%) against a group's number ("16 shots", "0.63 %"): a panel per data set.

    Tasks are called <data set>@<amount>. The first panel is the mean over data sets, at the
    amounts that every data set was run with. Bars are one sample standard deviation over seeds.
    """
    rows, amount, unit = _ranked(board), *_amounts(board)
    short, label = _UNITS.get(unit, (unit, unit))
    ticks = sorted(set(amount.values()))
    task_at: defaultdict[str, dict[float, str]] = defaultdict(dict)
    for group, tasks in board.groups.items():
        for task in tasks:
            task_at[task.partition("@")[0]][amount[group]] = task
    everywhere = {n: g for g, n in amount.items() if all(n in each for each in task_at.values())}
    panels = {
        name: [[(n, row.tasks[task]) for n, task in sorted(tasks.items())] for row in rows]
        for name, tasks in task_at.items()
    }
    if len(panels) > 1 and everywhere:
        average = [[(n, row.groups[g]) for n, g in sorted(everywhere.items())] for row in rows]
        panels = {f"average of {len(panels)} data sets": average, **panels}
    partly = [f"{n:g}" for n in ticks if n not in everywhere]
    notes = [f"Not averaged, as not every data set was run: {', '.join(partly)}."] if partly else []

    names = [textwrap.fill(row.method, 36) for row in rows]
    longest = max(len(line) for name in names for line in name.split("\n"))
    keys = max(1, min(4, len(rows), int(7 / (0.6 + 0.08 * longest))))  # columns of the legend
    tall = [0.06 + 0.165 * (name.count("\n") + 1) for name in names]
    # inches, as all that follows; a legend fills one column after the other
    legend = 0.06 + max(sum(column) for column in np.array_split(tall, keys))
    step = np.diff(np.log2(ticks)).min() / (1.16 * np.log2(ticks[-1] / ticks[0]))
    wide = max(len(f"{n:g}") for n in ticks) * 0.1  # of a tick's name
    columns = 3 if len(panels) > 4 and step * 1.75 > wide else min(2, len(panels))
    lines = -(-len(panels) // columns)
    left, gap, below, panel = 0.72, 0.48, 0.6, 1.8
    width = (_WIDTH - left - 0.12 - gap * (columns - 1)) / columns

    text = _Text.of(board, f"{_metric(board)} against {short}", [_seeds(rows, True)], notes)
    inner = lines * panel + (lines - 1) * below
    height = text.top + inner + text.bottom + legend
    figure = text.on(height)
    for i, (title, curves) in enumerate(panels.items()):
        x = left + (i % columns) * (width + gap)
        y = text.bottom + legend + (lines - 1 - i // columns) * (panel + below)
        at = (x / _WIDTH, y / height, width / _WIDTH, panel / height)
        axes = figure.add_axes(at)
        axes.set_title(title, size=10, loc="left", weight="normal" if title in task_at else "bold")
        _curves(axes, curves, ticks)
    middle = (left + 0.5 * (_WIDTH - left - 0.12)) / _WIDTH
    low = text.bottom + legend
    figure.text(middle, (low - 0.42) / height, label, ha="center", size=10)
    label = f"{_metric(board)} (%)"
    figure.text(0.14 / _WIDTH, (low + inner / 2) / height, label, rotation=90, va="center", size=10)
    figure.legend(
        [Line2D([], [], **look, lw=1.2, ms=5, mew=0.8) for look in _looks(len(rows))],
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, (low - 0.52) / height),
        ncols=keys,
        frameon=False,
        fontsize=9,
        handlelength=3,
        columnspacing=1.2,
        borderaxespad=0,
    )
    return figure


def _curves(
    axes: Axes, curves: Sequence[Sequence[tuple[float, Score | None]]], ticks: Sequence[float]
) -> None:
    """Accuracies (%) with their spread against amounts, a curve per method."""
    for curve, look in zip(curves, _looks(len(curves)), strict=True):
        points = [(n, 100 * s.mean, 100 * (s.std or np.nan)) for n, s in curve if s]
        axes.errorbar(
            *np.array(points).T, **look, lw=1.2, ms=4, mew=0.8, elinewidth=0.8, capsize=1.5
        )
    axes.set_xscale("log", base=2)
    pad = (ticks[-1] / ticks[0]) ** 0.08
    axes.set_xlim(ticks[0] / pad, ticks[-1] * pad)
    _ticks(axes, ticks, [f"{n:g}" for n in ticks])
    axes.tick_params(labelsize=9)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)


def _amounts(board: Leaderboard) -> tuple[dict[str, float], str]:
    """Group -> its number, and the unit that they share. UsageError for other groups."""
    found = {group: _AMOUNT.fullmatch(group) for group in board.groups}
    units = {match[2].strip().removesuffix("s") for match in found.values() if match}
    if None in found.values() or len(units) > 1 or not all("@" in task for task in board.tasks):
        raise UsageError(
            f"the groups of suite {board.suite} are no amounts of training images: "
            f"{', '.join(board.groups)}. This figure is for suites such as few-shot (1 shot, "
            "2 shots, ...) and medical (0.63 %, 1.25 %, ...)."
        )
    amounts = {group: float(match[1]) for group, match in found.items() if match}
    if len(amounts) < 2:
        raise UsageError(
            f"nothing to plot: all runs of suite {board.suite} are of {next(iter(amounts))}, and "
            "a line needs two. Run tasks of other groups too: "
            f"petlbench list tasks --suite {board.suite}"
        )
    return amounts, units.pop()


# --- what a search found


def _accuracy_vs_trials(board: Leaderboard, records: Sequence[Record]) -> Figure:
    """The best validation score so far (%) against the number of trials, mean of tasks.

    A line starts at the first trial by which every task has a score.
    """
    searched, lacking = _having("search", board, records)
    rules = _search_rules(searched)  # first: curves of different lengths have no mean
    best = {name: 100 * _mean_of_tasks(runs, _best_so_far) for name, runs in searched.items()}
    names = sorted(best, key=lambda name: -best[name][-1])
    count = len(best[names[0]])
    text = _Text.of(
        board,
        f"best validation {_judged(searched)} against trials",
        [rules, _seeds([row for row in _ranked(board) if row.method in best])],
        lacking,
    )
    wrapped = [textwrap.fill(name, 26) for name in names]
    longest = max(len(line) for name in wrapped for line in name.split("\n"))
    right = 0.42 + 0.085 * longest  # inches, for the names
    tall = np.array([0.06 + 0.16 * (name.count("\n") + 1) for name in wrapped])
    panel = max(3.1, 1.15 * tall.sum())
    height = text.top + panel + text.bottom
    figure = text.on(height)
    box = (0.8, text.bottom, _WIDTH - 0.8 - right, panel)
    axes = figure.add_axes(tuple(np.divide(box, (_WIDTH, height, _WIDTH, height))))

    numbers = np.arange(1, count + 1)
    curves = np.array([best[name] for name in names])
    low, high = np.nanmin(curves), np.nanmax(curves)
    margin = max(0.06 * (high - low), 0.3)
    axes.set_ylim(low - margin, high + margin)
    axes.set_xlim(1 - 0.02 * count, count + 0.02 * count)
    inch = panel / (high - low + 2 * margin)  # of a percent point
    ends = (curves[:, -1] - (low - margin)) * inch
    places = stack(ends, tall, panel)
    for curve, look, name, end, place in zip(
        curves, _looks(len(names)), wrapped, ends, places, strict=True
    ):
        axes.step(numbers, curve, where="post", lw=1.4, **{**look, "marker": ""})
        axes.plot(count, curve[-1], **{**look, "ls": ""}, ms=6, clip_on=False, zorder=5)
        axes.plot(
            [1 + 0.06 / box[2], 1 + 0.3 / box[2]],
            [end / panel, place / panel],
            transform=axes.transAxes,
            clip_on=False,
            color=look["color"],
            lw=0.8,
        )
        axes.text(
            *(1 + 0.34 / box[2], place / panel, name),
            transform=axes.transAxes,
            va="center",
            size=9,
            linespacing=1.1,
        )
    step = next(s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if count <= 12 * s)
    marks = sorted({1, *range(step, count + 1, step)} - ({2} if step > 2 else set()))
    _ticks(axes, marks, [str(mark) for mark in marks])
    axes.set_xlabel("trials a task, the first being the default setting")
    axes.set_ylabel(f"validation {_judged(searched)} (%), mean of tasks", size=10)
    axes.grid(axis="y", color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure


def _default_vs_tuned(board: Leaderboard, records: Sequence[Record]) -> Figure:
    """Per method: validation score of the default and of the winner, and the test score (%)."""
    searched, notes = _having("search", board, records)
    values = {
        name: 100 * _mean_of_tasks(runs, _default_winner_test) for name, runs in searched.items()
    }
    failed = [name for name, (default, *_) in values.items() if np.isnan(default)]
    if failed:
        notes += [f"The default setting failed on some task: {', '.join(failed)}."]
    text = _Text.of(
        board,
        f"{_judged(searched)} of the default and of the tuned setting",
        [_search_rules(searched), _seeds([row for row in _ranked(board) if row.method in values])],
        notes,
    )
    marks = [
        (
            "default, validation",
            {"marker": "o", "ms": 8, "mfc": "white", "color": _OTHER, "zorder": 3},
        ),
        ("tuned, validation", {"marker": "o", "ms": 5, "color": _FRONT, "zorder": 4}),
        ("tuned, test", {"marker": "|", "ms": 11, "mew": 2, "color": "black", "zorder": 5}),
    ]
    return _dumbbells(
        text, values, marks, f"{_judged(searched)} (%), mean of tasks", "gain", order=2
    )


def _search(record: Record) -> Array:
    """The validation score of every trial, NaN where it has none."""
    values = [trial["value"] for trial in record["search"]["trials"]]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _best_so_far(record: Record) -> Array:
    return np.fmax.accumulate(_search(record))


def _default_winner_test(record: Record) -> Array:
    trials, search = _search(record), record["search"]
    test = metrics(record["test"])[search["metric"]]
    return np.array([trials[0], trials[search["winner"]], test], dtype=float)


def _judged(searched: Mapping[str, Sequence[Record]]) -> str:
    """What trials are judged by."""
    found = {run["search"]["metric"] for runs in searched.values() for run in runs}
    return str(found.pop()).replace("_", " ") if len(found) == 1 else "score"


def _search_rules(searched: Mapping[str, Sequence[Record]]) -> str:
    """Budget, sampler and split in words. UsageError for different budgets."""
    runs = [run["search"] for found in searched.values() for run in found]
    counts = sorted({len(search["trials"]) for search in runs})
    if len(counts) > 1:
        raise UsageError(
            f"searches of {' and '.join(map(str, counts))} trials must not share a plot: "
            "a larger budget flatters. Draw each from a results folder of its own."
        )
    how = ", ".join(sorted({search["sampler"] for search in runs}))
    where = ", ".join(sorted({s["val_split"] for s in runs if "val_split" in s}))
    trials = "1 trial" if counts == [1] else f"{counts[0]} trials"
    return f"{trials} a task ({how})" + (f", judged on {where}" if where else "")


# --- what peeking at the test set would add


def _peek_gap(board: Leaderboard, records: Sequence[Record]) -> Figure:
    """Per method: the reported test score and the best over training (%), mean of tasks."""
    peeked, notes = _having("peek", board, records)
    values = {name: 100 * _mean_of_tasks(runs, _reported_best) for name, runs in peeked.items()}
    found = {run["peek"]["metric"] for runs in peeked.values() for run in runs}
    unit = str(found.pop()).replace("_", " ") if len(found) == 1 else "score"
    text = _Text.of(
        board,
        f"best-on-test {unit} is shown to measure a bias; it is never reported or used",
        [
            "The gap is what choosing the epoch on the test set would add, in percentage points",
            _seeds([row for row in _ranked(board) if row.method in values]),
        ],
        notes,
    )
    marks = [
        ("reported: the last epoch", {"marker": "o", "ms": 5, "color": _FRONT, "zorder": 4}),
        (
            "best of all looks at the test set",
            {"marker": "o", "ms": 8, "mfc": "white", "color": _OTHER, "zorder": 3},
        ),
    ]
    return _dumbbells(text, values, marks, f"test {unit} (%), mean of tasks", "gap", order=0)


def _reported_best(record: Record) -> Array:
    peek = record["peek"]
    return np.array([peek["curve"][-1][peek["metric"]], peek["best"]], dtype=float)


# --- what figures share


@dataclass(frozen=True)
class _Text:
    """What stands above and below the axes, in lines; lengths in inches."""

    title: list[str]
    above: list[str]
    below: list[str]

    @classmethod
    def of(
        cls, board: Leaderboard, about: str, facts: Sequence[str], notes: Sequence[str] = ()
    ) -> _Text:
        """`notes` come after the names of the rows that are incomplete."""
        hidden = ", ".join(row.method for row in board.rows if row.rank is None)
        below = [f"Incomplete, not drawn: {hidden}."] if hidden else []
        above = [subject(board), f"{'; '.join(facts)}; fingerprint {board.fingerprint}"]
        return cls(
            textwrap.wrap(f"{board.suite}: {about}", 62),
            [line for text in above for line in textwrap.wrap(text, 100)],
            [line for text in (*below, *notes) for line in textwrap.wrap(text, 100)],
        )

    @property
    def top(self) -> float:
        """From the axes to the upper edge, with a line for a legend."""
        return 0.42 + 0.23 * (len(self.title) - 1) + _LINE * (len(self.above) + 1.6)

    @property
    def bottom(self) -> float:
        """From the axes to the lower edge, with the name of the x axis."""
        return 0.62 + _LINE * len(self.below)

    def on(self, height: float) -> Figure:
        figure = Figure(figsize=(_WIDTH, height))
        FigureCanvasAgg(figure)  # text is measured with it
        at = 1 - 0.14 / height
        title = "\n".join(self.title)
        figure.text(0.02, at, title, va="top", size=13, weight="bold")
        at -= (0.3 + 0.23 * (len(self.title) - 1)) / height
        small: dict[str, Any] = {"size": 9, "color": _OTHER, "va": "top", "linespacing": 1.35}
        figure.text(0.02, at, "\n".join(self.above), **small)
        at = _LINE / height * (len(self.below) + 0.4)
        figure.text(0.02, at, "\n".join(self.below), **small)
        return figure


def _dumbbells(
    text: _Text,
    values: Mapping[str, Array],
    marks: Sequence[tuple[str, dict[str, Any]]],
    label: str,
    heading: str,
    order: int,
) -> Figure:
    """A line per method from its first mark to its second, whose difference stands beside it.

    The methods are ordered by the mark of index `order`, best first.
    """
    values = dict(sorted(values.items(), key=lambda item: -item[1][order]))
    names = [textwrap.fill(name, 28) for name in values]
    table = np.array(list(values.values()))  # (methods, marks)
    tall = np.array([0.14 + 0.16 * (name.count("\n") + 1) for name in names])
    longest = max(len(line) for name in names for line in name.split("\n"))
    left, right, panel = 0.3 + 0.09 * longest, 0.7, 0.1 + tall.sum()
    height = text.top + panel + text.bottom
    figure = text.on(height)
    box = (left, text.bottom, _WIDTH - left - right, panel)
    axes = figure.add_axes(tuple(np.divide(box, (_WIDTH, height, _WIDTH, height))))
    y = panel - 0.05 - np.cumsum(tall) + tall / 2
    axes.set_ylim(0, panel)
    low, high = np.nanmin(table), np.nanmax(table)
    margin = max(0.06 * (high - low), 0.3)
    axes.set_xlim(low - margin, high + margin)
    axes.hlines(y, table[:, 0], table[:, 1], color=_FRONT, lw=1.6, alpha=0.6, zorder=2)
    for (name, look), column in zip(marks, table.T, strict=True):
        axes.plot(column, y, ls="", label=name, **look)
    axes.set_yticks(y, names, size=10)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
    beside: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "ha": "right", "size": 10}
    edge = 1 + (right - 0.12) / box[2]
    for middle, (first, second) in zip(y, table[:, :2], strict=True):
        gap = "–" if np.isnan(second - first) else f"{second - first:+.1f}"
        axes.text(edge, middle, gap, va="center", **beside)
    axes.text(edge, panel + 0.05, heading, va="bottom", **{**beside, "size": 9})
    axes.legend(
        loc="lower right",
        bbox_to_anchor=(1, 1),
        ncols=len(marks),
        frameon=False,
        fontsize=9,
        handletextpad=0.1,
        columnspacing=1,
        borderaxespad=0.1,
    )
    return figure


def _having(
    what: str, board: Leaderboard, records: Sequence[Record]
) -> tuple[dict[str, list[Record]], list[str]]:
    """The counted runs of each ranked row, best first, if all of them tell of a search or peek.

    And a note naming the rows of which they do not: a mean over some of the tasks would compare
    different things. UsageError if no row is left.
    """
    rows = {row.method: row for row in board.rows}
    counted: dict[str, dict[str, Record]] = {row.method: {} for row in _ranked(board)}
    for record in records:
        spec = record["spec"]
        here = (spec["suite"], record["fingerprint"], spec["backbone"])
        if here == (board.suite, board.fingerprint, board.backbone):
            label, source = spec["method"]["label"], spec["method"]["source"]
            name = label if label in rows else f"{label}@{str(source)[:6]}"  # as the board does
            done = record["status"] == "done"
            if name in counted and done and spec["seed"] in rows[name].seeds:
                counted[name][record["key"]] = record
    found = {
        name: list(runs.values())
        for name, runs in counted.items()
        if runs and all(what in run for run in runs.values())
    }
    if not found:
        option = {"search": "--search 20", "peek": "--report-peek"}[what]
        raise UsageError(
            f"nothing to plot: no method of suite {board.suite} tells of a {what} in every run. "
            f"Make some: petlbench run --suite {board.suite} {option}"
        )
    lacking = ", ".join(name for name in counted if name not in found)
    return found, [f"No {what} in some run, not drawn: {lacking}."] if lacking else []


def _mean_of_tasks(runs: Sequence[Record], values: Callable[[Record], Array]) -> Array:
    """Over seeds within each task first; NaN where any is NaN."""
    by_task: defaultdict[str, list[Array]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: str(run["key"])):  # sums depend on the order
        by_task[run["spec"]["task"]].append(values(run))
    means = [np.mean(found, axis=0) for _, found in sorted(by_task.items())]
    return np.asarray(np.mean(means, axis=0))


def _ranked(board: Leaderboard) -> list[Row]:
    return [row for row in board.rows if row.rank is not None]


def _metric(board: Leaderboard) -> str:
    return board.metric.replace("_", " ")


def _looks(count: int) -> list[dict[str, Any]]:
    """Colour, marker and dashes of each line; filled and hollow in turn."""
    looks = zip(cycle(_COLOURS), cycle(_MARKERS), cycle(_DASHES), cycle((1, 0)), strict=False)
    return [
        {"color": colour, "marker": marker, "ls": dashes, "mfc": colour if fill else "white"}
        for colour, marker, dashes, fill in islice(looks, count)
    ]


def _ticks(axes: Axes, at: Sequence[float], names: Sequence[str]) -> None:
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_major_formatter(FixedFormatter(names))
    axes.xaxis.set_minor_locator(NullLocator())


def _seeds(rows: Sequence[Row], bars: bool = False) -> str:
    counts = sorted({len(row.seeds) for row in rows})
    if counts == [1]:
        return "1 seed"
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} seeds" + (", bars ± 1 standard deviation" if bars else "")


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


FIGURES: Mapping[str, Callable[[Leaderboard, Sequence[Record]], Figure]] = {
    "params-vs-accuracy": _params_vs_accuracy,
    "accuracy-vs-shots": _accuracy_vs_shots,
    "accuracy-vs-trials": _accuracy_vs_trials,
    "default-vs-tuned": _default_vs_tuned,
    "peek-gap": _peek_gap,
}

# What a record must have to be drawn, where that is not a matter of course.
NEEDS = {"accuracy-vs-trials": "search", "default-vs-tuned": "search", "peek-gap": "peek"}


def candidates(
    kind: str, boards: Sequence[Leaderboard], records: Sequence[Record]
) -> list[Leaderboard]:
    """The boards that have what the figure shows; all of them if none has."""
    need = NEEDS.get(kind)
    having = {r["fingerprint"] for r in records if need is None or need in r}
    return [board for board in boards if board.fingerprint in having] or list(boards)
