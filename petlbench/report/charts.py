"""The two charts of a comparison, drawn by Bokeh, as JSON that its script shows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, FactorRange, FixedTicker, HoverTool
from bokeh.plotting import figure

from petlbench.formats import _text
from petlbench.leaderboard import Leaderboard, Row
from petlbench.plots._cost import COUNTS, pareto_front, short, ticks
from petlbench.wording import visible

Json = dict[str, Any]

# Blue against grey and filled against hollow: told apart without colour too. In the dark the page
# inverts the lightness of its charts, so that every colour here is one on white.
_FRONT, _OTHER, _TEXT, _GRID = "#0173b2", "#666666", "#222222", "#e4e4e4"
_WORSE, _SAME, _BETTER = (178, 89, 0), (247, 247, 247), (1, 102, 160)
_LONGEST = 34  # characters of a method's name beside the heat map


def params_vs_accuracy(board: Leaderboard, settings: dict[str, str], name: str) -> Json | None:
    """What ranks (%) against trainable parameters without head; None without ranked rows.

    `settings`: method -> its settings, in words. `name`: of the chart, its own on the page.
    """
    rows = [row for row in board.rows if row.rank and row.ranking]
    if not rows:
        return None
    params = [row.trainable_parameters or 0 for row in rows]
    scores = [row.ranking for row in rows if row.ranking]
    values = [100 * score.mean for score in scores]
    front = set(pareto_front(list(zip(map(float, params), values, strict=True))))
    zero, low, high = _places(params)
    left = zero**2 / low if 0 in params else low  # 0 in the middle of its slot
    x = [count or zero for count in params]
    plot = _figure(
        height=440,
        min_width=320,  # a narrower page scrolls it
        x_axis_type="log",
        x_range=(left, high),
        x_axis_label="trainable parameters, without head",
        y_axis_label=f"{board.ranking} (%)",
        tools="box_zoom,reset,save",
        toolbar_location="above",
        tooltips=None,
    )
    marks = {tick: short(tick, COUNTS) for tick in ticks(low, high)}
    plot.xgrid.ticker = FixedTicker(ticks=list(marks))
    if 0 in params:
        marks = {zero: "0", **marks}
        plot.vspan([low], line_color=_GRID, line_width=3)
    plot.xaxis.ticker = FixedTicker(ticks=list(marks))
    plot.xaxis.major_label_overrides = marks
    steps = sorted({(x[i], values[i]) for i in front})
    line = [steps[0]]
    for (_, before), (at, value) in pairwise(steps):
        line += [(at, before), (at, value)]
    line.append((high, steps[-1][1]))
    plot.line(*map(list, zip(*line, strict=True)), color=_FRONT, alpha=0.6, line_width=1.5)
    lows = [100 * (s.mean if s.low is None else s.low) for s in scores]
    highs = [100 * (s.mean if s.high is None else s.high) for s in scores]
    source = ColumnDataSource(
        {
            "x": x,
            "y": values,
            "low": lows,
            "high": highs,
            "method": [row.method for row in rows],
            "settings": [f"settings: {settings[row.method]}" for row in rows],
            "params": [f"{count:,} trainable parameters" for count in params],
            "score": [f"{board.ranking}: {_text.told(score)}" for score in scores],
            "rank": [_rank(row) for row in rows],
            "fill": [_FRONT if i in front else "#ffffff" for i in range(len(rows))],
            "line": [_FRONT if i in front else _OTHER for i in range(len(rows))],
        }
    )
    plot.segment("x", "low", "x", "high", source=source, color="line", line_width=1.2)
    dots = plot.scatter("x", "y", source=source, size=10, fill_color="fill", line_color="line")
    plot.add_tools(_hover(dots, "method", "rank", "score", "params", "settings"))
    names = {(x[i], values[i]): rows[i].method for i in front}
    _name_front(plot, names, zero, high / left, max(highs) - min(lows))
    return _json(plot, name)


def heat_map(board: Leaderboard, baseline: str | None, name: str) -> Json:
    """Every method on every task: the difference to `baseline` in points.

    Without a baseline the score (%), coloured by its difference to the mean of the task's scores.
    """
    factors = [(group, task) for group, tasks in board.groups.items() for task in tasks]
    names = _short([row.method for row in board.rows])
    levels = {task: _level(board, task, baseline) for task in board.tasks}
    found = [
        (row, short, factor, row.tasks[factor[1]])
        for row, short in zip(board.rows, names, strict=True)
        for factor in factors
    ]
    differences = [
        score.mean - level if score and (level := levels[task]) is not None else None
        for _, _, (_, task), score in found
    ]
    widest = max((abs(each) for each in differences if each is not None), default=0) or 1
    points = ["–" if each is None else f"{100 * each:+.1f}" for each in differences]
    points = [text.replace("-", "−") for text in points]
    scores = [f"{100 * score.mean:.1f}" if score else "–" for *_, score in found]
    shades = [_shade(each if each is None else each / widest) for each in differences]
    source = ColumnDataSource(
        {
            "x": [factor for _, _, factor, _ in found],
            "y": [short for _, short, _, _ in found],
            "method": [row.method for row, *_ in found],
            "task": [f"{task} ({group})" for _, _, (group, task), _ in found],
            "score": [_text.told(score) if score else "not finished" for *_, score in found],
            "difference": [f"{each} points to {baseline or 'the mean'}" for each in points],
            "text": points if baseline else scores,
            "shade": [shade for shade, _ in shades],
            "ink": [ink for _, ink in shades],
        }
    )
    plot = _figure(
        height=22 * len(names) + 190,
        min_width=180 + 46 * len(factors),
        x_range=FactorRange(factors=factors, group_padding=0.4, range_padding=0),
        y_range=FactorRange(factors=names[::-1], range_padding=0),
        x_axis_location="above",
        tools="",
        toolbar_location=None,
    )
    plot.grid.visible = False
    plot.xaxis.major_label_orientation = math.pi / 2
    plot.xaxis.group_text_color = plot.xaxis.separator_line_color = _OTHER
    plot.axis.axis_line_color = plot.axis.major_tick_line_color = None
    squares = plot.rect("x", "y", 1, 1, source=source, fill_color="shade", line_color="#ffffff")
    middle = {"text_align": "center", "text_baseline": "middle", "text_font_size": "11px"}
    plot.text("x", "y", text="text", source=source, text_color="ink", **middle)
    plot.add_tools(_hover(squares, "method", "task", "score", "difference"))
    return _json(plot, name)


def _level(board: Leaderboard, task: str, baseline: str | None) -> float | None:
    """What the scores of a task are compared with."""
    rows = [row for row in board.rows if baseline in (None, row.method)]
    scores = [score.mean for row in rows if (score := row.tasks[task])]
    return math.fsum(scores) / len(scores) if scores else None


def _figure(**options: Any) -> Any:
    plot = figure(
        sizing_mode="stretch_width",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        active_drag=None,  # a finger that scrolls the page must not zoom
        **options,
    )
    plot.toolbar.logo = None
    plot.grid.grid_line_color = _GRID
    plot.axis.axis_label_text_font_style = "normal"
    plot.axis.axis_label_text_color = plot.axis.major_label_text_color = _TEXT
    plot.axis.major_label_text_font_size = "12px"
    plot.axis.minor_tick_line_color = None
    return plot


def _hover(dots: Any, first: str, *columns: str) -> HoverTool:
    """What stands in these columns, one below the other; Bokeh escapes it."""
    lines = "".join(f"<br>@{name}" for name in columns)
    text = f"<div style='max-width: min(17rem, 38vw); font-size: 13px'><b>@{first}</b>{lines}</div>"
    return HoverTool(renderers=[dots], tooltips=text, visible=False)


def _places(params: Sequence[int]) -> tuple[float, float, float]:
    """Where 0 stands on the logarithmic axis, and both ends of the rest."""
    positive = [count for count in params if count] or [1_000]
    low, high = math.log10(min(positive)), math.log10(max(positive))
    pad = max(0.08 * (high - low), 0.4)
    low, high = low - pad, high + pad
    return 10 ** (low - 0.075 * (high - low)), 10**low, 10**high


def _name_front(
    plot: Any, names: dict[tuple[float, float], str], zero: float, wide: float, tall: float
) -> None:
    """To the left of each point and above, where a front has no other point; others on hovering.

    Left of `zero` there is no place. Of points too near for two names, the first is named there
    and the last to the right and below. `wide` is the ratio of both ends of the logarithmic axis,
    `tall` the length of the other.
    """
    points = sorted(names)
    near = [
        math.log(x / before) < 0.25 * math.log(wide) and y - below < 0.05 * tall
        for (before, below), (x, y) in pairwise(points)
    ]
    columns: dict[str, Any] = {"x": [], "y": [], "name": [], "align": [], "base": []}
    for (x, y), to_last, to_next in zip(points, [False, *near], [*near, False], strict=True):
        if to_last and to_next:
            continue
        align = "left" if to_last or x == zero else "right"
        told = x, y, _cut(names[x, y], 24), align, "top" if to_last else "bottom"
        for column, value in zip(columns.values(), told, strict=True):
            column.append(value)
    columns["right"] = [7 if align == "left" else -7 for align in columns["align"]]
    columns["down"] = [5 if base == "top" else -5 for base in columns["base"]]
    look = {"text_font_size": "12px", "text_color": _TEXT, "text_baseline": "base"}
    place = {"text_align": "align", "x_offset": "right", "y_offset": "down"}
    plot.text("x", "y", text="name", source=ColumnDataSource(columns), **look, **place)


def _rank(row: Row) -> str:
    return f"rank {row.rank}" + (f", rank group {row.letters}" if row.letters else "")


def _shade(share: float | None) -> tuple[str, str]:
    """The colour of a cell and of its text; `share` of the largest difference, -1 to 1."""
    if share is None:
        return "#ffffff", _OTHER
    end = _BETTER if share > 0 else _WORSE
    mix = [round(s + (e - s) * abs(share) ** 0.8) for s, e in zip(_SAME, end, strict=True)]
    dark = 0.299 * mix[0] + 0.587 * mix[1] + 0.114 * mix[2] < 140
    return "#{:02x}{:02x}{:02x}".format(*mix), "#ffffff" if dark else _TEXT


def _short(names: Sequence[str]) -> list[str]:
    """Cut to what fits beside the chart, and still told apart."""
    cut = [_cut(name, _LONGEST) for name in names]
    return [f"{name} ({i})" if cut.count(name) > 1 else name for i, name in enumerate(cut, 1)]


def _cut(name: str, longest: int) -> str:
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _json(plot: Any, name: str) -> Json:
    """What the page embeds: names as they are seen, and identifiers that do not depend, as Bokeh's
    do, on what ran before.
    """
    numbers: dict[str, str] = {}

    def counted(part: Any) -> Any:
        if isinstance(part, list | tuple):
            return [counted(each) for each in part]
        if isinstance(part, str):
            return visible(part)
        if not isinstance(part, dict):
            return part
        return {
            key: numbers.setdefault(value, f"{name}-{len(numbers) + 1}")
            if key in ("id", "root_id") and isinstance(value, str)
            else counted(value)
            for key, value in part.items()
        }

    item = dict(json_item(plot))
    return dict(counted({"target_id": name, "root_id": item["root_id"], "doc": item["doc"]}))
