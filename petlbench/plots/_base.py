"""What figures share: styles, the words around the axes, looks of lines, runs behind rows, files.

Figures are laid out in inches of the screen's style, in which a text of size 11 is read; the other
styles shrink or widen the page, and `pt` and `Page` follow.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import seaborn
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator
from numpy.typing import NDArray

from petlbench import wording
from petlbench.errors import UsageError
from petlbench.leaderboard import Leaderboard, Record, Row, Score, subject
from petlbench.results import Results

Array = NDArray[np.float64]

# Without these a file would hold the time of drawing and never be the same twice.
_METADATA: dict[str, dict[str, Any]] = {
    ".png": {},
    ".pdf": {"CreationDate": None},
    ".svg": {"Date": None},
}
_COMMON = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure on every machine
    "axes.spines.top": False,
    "axes.spines.right": False,
    "pdf.fonttype": 42,  # publishers refuse Type 3 fonts
    "savefig.dpi": 200,
    "svg.hashsalt": "petlbench",
    "text.parse_math": False,  # a name may hold dollar signs; `lettered` names alone are parsed
}
SIZE = 11  # points, of a label of the screen's style
# The width counts; every figure finds its height. Columns and pages are those of most proceedings.
STYLES: dict[str, dict[str, Any]] = {
    "screen": {"font.size": SIZE, "figure.figsize": (7.2, 4.8)},
    "paper": {"font.size": 8, "figure.figsize": (3.3, 2.4)},
    "paper-wide": {"font.size": 8, "figure.figsize": (6.9, 4.6)},
}

# Blue against grey, filled against hollow, bold against plain: told apart without colour too.
FRONT, OTHER = seaborn.color_palette("colorblind").as_hex()[0], "#555555"
GRID: dict[str, Any] = {"color": "#e8e8e8", "linewidth": 0.8}
LINE = 0.19  # inches, a line of small print
_COLOURS = [seaborn.color_palette("colorblind").as_hex()[i] for i in (0, 3, 2, 4, 1, 9, 5)]
_MARKERS = "os^DvPX<>*h"  # with 7 colours and 4 dashes, no two of 308 lines look the same
_DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (6, 1.5, 1.2, 1.5)))


# --- style and file


@contextmanager
def styled(name: str) -> Iterator[None]:
    """Draw and save in that style of STYLES."""
    with style.context(["default", seaborn.axes_style("ticks"), _COMMON, STYLES[name]]):
        yield


def pt(size: float) -> float:
    """Points of a text which has `size` points in the screen's style."""
    return float(size * matplotlib.rcParams["font.size"] / SIZE)


def save(figure: Figure, path: Path) -> None:
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


# --- the page


@dataclass(frozen=True)
class Page:
    """A figure's width and the lines above and below its axes; lengths in inches."""

    title: list[str]
    above: list[str]
    below: list[str]
    width: float
    scale: float  # of the lengths
    keys: int = 1  # lines of a legend above the axes

    @classmethod
    def of(
        cls, board: Leaderboard, about: str, facts: Sequence[str], notes: Sequence[str] = ()
    ) -> Page:
        """`notes` come after the names of the rows that are incomplete."""
        scale = pt(1)
        width = matplotlib.rcParams["figure.figsize"][0] / scale
        hidden = ", ".join(row.method for row in board.rows if row.rank is None)
        below = [f"Incomplete, not drawn: {hidden}."] if hidden else []
        above = [subject(board), f"{'; '.join(facts)}; fingerprint {board.fingerprint}"]
        large, small = int(width * 8.65), int(width * 13.9)  # letters in a line
        return cls(
            _lines(f"{board.suite}: {about}", large),
            [line for text in above for line in _lines(text, small)],
            [line for text in (*below, *notes) for line in _lines(text, small)],
            width,
            scale,
        )

    @property
    def top(self) -> float:
        """From the axes to the upper edge, with room for a legend."""
        return 0.42 + 0.23 * (len(self.title) - 1) + LINE * (len(self.above) + self.keys + 0.6)

    @property
    def bottom(self) -> float:
        """From the axes to the lower edge, with the name of the x axis."""
        return 0.62 + LINE * len(self.below)

    def figure(self, height: float) -> Figure:
        """An empty one with its words, so high."""
        figure = Figure(figsize=(self.width * self.scale, height * self.scale))
        FigureCanvasAgg(figure)  # text is measured with it
        at = 1 - 0.14 / height
        title = "\n".join(self.title)
        left = 0.144 / self.width
        figure.text(left, at, title, va="top", size=pt(13), weight="bold")
        at -= (0.3 + 0.23 * (len(self.title) - 1)) / height
        small: dict[str, Any] = {"size": pt(9), "color": OTHER, "va": "top", "linespacing": 1.35}
        figure.text(left, at, "\n".join(self.above), **small)
        at = LINE / height * (len(self.below) + 0.4)
        figure.text(left, at, "\n".join(self.below), **small)
        return figure

    def axes(self, figure: Figure, box: tuple[float, float, float, float]) -> Axes:
        """Axes at (left, bottom, width, height) on a figure of this page."""
        height = figure.get_size_inches()[1] / self.scale
        return figure.add_axes(tuple(np.divide(box, (self.width, height, self.width, height))))


def seeds(rows: Sequence[Row]) -> str:
    """How many, in words."""
    counts = sorted({len(row.seeds) for row in rows})
    if counts == [1]:
        return "1 seed"
    number = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return f"{number} seeds"


def bars(scores: Sequence[Score]) -> tuple[Callable[[Score], tuple[float, float]], str]:
    """How far the error bar of a score reaches below and above its mean (%), and what bars are.

    The 95% intervals if all scores of the figure have one, else one sample standard deviation over
    seeds, never both; NaN where there is none.
    """
    if all(score.low is not None and score.high is not None for score in scores):
        return _interval, "bars: 95% intervals"
    told = "bars ± 1 standard deviation" if any(score.std for score in scores) else ""
    return _deviation, told


def _interval(score: Score) -> tuple[float, float]:
    low, high = score.low or 0.0, score.high or 0.0
    return 100 * (score.mean - low), 100 * (high - score.mean)


def _deviation(score: Score) -> tuple[float, float]:
    spread = 100 * (score.std or np.nan)
    return spread, spread


def words(*parts: str) -> str:
    """Those that say something, as a list."""
    return ", ".join(part for part in parts if part)


def lettered(name: str, row: Row) -> str:
    """The name with the letters of its row behind it, small and raised, abc in short.

    For a text with `parse_math=True`.
    """
    found: list[list[str]] = []
    for letter in re.findall(r"[a-z]\d*", row.letters):
        follows = found and ord(letter[0]) == ord(found[-1][-1][0]) + 1
        if follows and letter[1:] == found[-1][-1][1:]:
            found[-1].append(letter)
        else:
            found.append([letter])
    told = [f"{run[0]}–{run[-1]}" if len(run) > 2 else "".join(run) for run in found]
    raised = rf"$^{{\mathrm{{{','.join(told)}}}}}$" if told else ""
    apart = "\u2009" if name.endswith("\\") else ""  # or the sign after it would be a plain dollar
    return name.replace("$", r"\$") + (apart + raised if raised else "")


def judged(board: Leaderboard) -> list[str]:
    """What letters behind names mean, if there are any."""
    if not any(row.letters for row in board.rows):
        return []
    return ["Methods that share a letter cannot be told apart."]


def folded(name: str, width: int, **how: bool) -> str:
    """Every sign of it to be seen, in lines of so many letters; `how` is that of textwrap."""
    return "\n".join(_lines(name, width, **how))


def _lines(text: str, width: int, **how: bool) -> list[str]:
    return textwrap.wrap(wording.visible(text), width, **how)  # type: ignore[arg-type]


def longest(texts: Sequence[str]) -> int:
    """Characters of the longest line of wrapped texts."""
    return max(len(line) for text in texts for line in text.split("\n"))


def metric(board: Leaderboard) -> str:
    return wording.metric(board.metric)


def looks(count: int) -> list[dict[str, Any]]:
    """Colour, marker and dashes of each line; filled and hollow in turn."""
    looks = zip(cycle(_COLOURS), cycle(_MARKERS), cycle(_DASHES), cycle((1, 0)), strict=False)
    return [
        {"color": colour, "marker": marker, "ls": dashes, "mfc": colour if fill else "white"}
        for colour, marker, dashes, fill in islice(looks, count)
    ]


def ticks(axes: Axes, at: Sequence[float], names: Sequence[str]) -> None:
    """Exactly these on the x axis."""
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_major_formatter(FixedFormatter(names))
    axes.xaxis.set_minor_locator(NullLocator())


# --- rows and runs


def ranked(board: Leaderboard) -> list[Row]:
    """What is drawn, best first."""
    return [row for row in board.rows if row.rank is not None]


def telling(
    what: str, results: Results, option: str = ""
) -> tuple[dict[str, list[Record]], list[str]]:
    """The counted runs of each ranked row, best first, if all of them have this part.

    `option` is what makes `petlbench run` record it. And a note naming the rows of which they do
    not: a mean over some of the tasks would compare different things. UsageError if no row is left.
    """
    name = what.replace("_", " ")
    counted = {row.method: results.of(row) for row in ranked(results.board)}
    found = {row: runs for row, runs in counted.items() if all(run.get(what) for run in runs)}
    if not found:
        command = f"petlbench run --suite {results.board.suite} {option}".rstrip()
        raise UsageError(
            f"nothing to plot: no method of suite {results.board.suite} tells of a {name} in "
            f"every run. Make some: {command}"
        )
    lacking = ", ".join(row for row in counted if row not in found)
    return found, [f"No {name} in some run, not drawn: {lacking}."] if lacking else []


def tells(what: str, results: Results) -> bool:
    """Whether any finished run has this part."""
    return any(bool(run.get(what)) for run in results.records.values() if run["status"] == "done")


def mean_of_tasks(runs: Sequence[Record], values: Callable[[Record], Array]) -> Array:
    """Over seeds within each task first; NaN where any is NaN."""
    by_task: defaultdict[str, list[Array]] = defaultdict(list)
    for run in runs:
        by_task[run["spec"]["task"]].append(values(run))
    means = [np.mean(found, axis=0) for _, found in sorted(by_task.items())]
    return np.asarray(np.mean(means, axis=0))


def percent(score: Score | None) -> float:
    """Its mean in percent; NaN where nothing can be said."""
    return 100 * score.mean if score else np.nan
