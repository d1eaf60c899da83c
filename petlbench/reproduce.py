"""What was measured beside what was published, and why the two are not one experiment.

The interval of a difference is the 95% percentile interval of resamples. On the measured side
seeds and test examples are drawn (`statistics.bootstrap`); on the published side test examples, as
binomial numbers of a test set of the size that the suite declares (of a mean, those of its tasks;
of a task that is not printed, those of the measured one). Seeds of the published runs, rounding,
and whatever else two laboratories do differently are not in it. The sides are taken as independent
although they share test examples, which makes intervals rather too wide.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from petlbench import leaderboard
from petlbench.errors import UsageError
from petlbench.published import MEANS, groups, rows, select
from petlbench.published.rows import Row
from petlbench.results import Results
from petlbench.statistics import panel as panels
from petlbench.statistics.bootstrap import Bootstrap, percentiles
from petlbench.statistics.panel import Array, Panel
from petlbench.task import load_suite
from petlbench.weights import NORMALISATIONS, RANDOM

if TYPE_CHECKING:
    import pandas as pd

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Number:
    """A number with its 95% interval; percent or percentage points."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Cell:
    """What one source says: in percent, and how far above it the measured number is."""

    published: float
    printed: bool  # or the mean of what is printed
    difference: Number | None  # None where nothing was measured


@dataclass(frozen=True)
class Line:
    """A task, a group or a mean. `cells`: one per source, None where it has no such number."""

    name: str
    measured: Number | None
    cells: tuple[Cell | None, ...]


@dataclass(frozen=True)
class Protocol:
    """How a source's experiment differs: lines like "epochs: 20 | 100", measured before published.

    `unknown`: what is not known of the published one.
    """

    apart: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Reproduction:
    """One measured row beside every published row of its method and suite."""

    board: leaderboard.Leaderboard
    method: str  # the measured row
    seeds: int
    sources: tuple[Row, ...]
    protocols: tuple[Protocol, ...]  # one per source
    lines: tuple[Line, ...]


def reproduce(
    found: Sequence[Results], method: str, suite: str, source: str | None = None
) -> list[Reproduction]:
    """One for every measured row of that method in that suite.

    Raises:
        UsageError: Nothing is published of it, or nothing was measured.
    """
    published = rows.of(select(suite, method, source=source))
    made = [
        _reproduction(results, row, published)
        for results in found
        if results.board.suite == suite
        for row in results.board.rows
        if (keys := results.of(row)) and keys[0]["spec"]["method"]["name"] == method
    ]
    if not made:
        raise UsageError(
            f"no finished run of {method} in suite {suite} is among these results. Run it: "
            f"petlbench run --suite {suite} --methods {method}. What is published: "
            f"petlbench published --suite {suite} --method {method}"
        )
    return made


def _reproduction(results: Results, row: leaderboard.Row, published: Sequence[Row]) -> Reproduction:
    board = results.board
    panel = panels.of(results, [row.method], [task for task, keys in row.runs.items() if keys])
    boot = Bootstrap(panel)
    suite = groups(board.suite)
    sizes = _test_sizes(board)
    printed = [_numbers(each, board.metric, suite) for each in published]
    lines = []
    for name in (*(task for tasks in suite.values() for task in tasks), *suite, *MEANS):
        draws = 100 * boot.draws(name)[:, 0] if _measured(panel, name, suite) else None
        measured = None
        if draws is not None:
            interval = 100 * boot.interval(name)[:, 0]
            measured = _number(float(100 * panel.mean(name)[0]), interval)
        cells = []
        for each, numbers in zip(published, printed, strict=True):
            value = numbers.get(name)
            difference = None
            if value is not None and measured is not None and draws is not None:
                noise = _noise(panel, name, numbers, sizes, len(draws))
                difference = _number(measured.value - value, percentiles(draws - value - noise))
            as_printed = (name, board.metric) in each.printed
            cells.append(None if value is None else Cell(value, as_printed, difference))
        if measured or any(cells):
            lines.append(Line(name, measured, tuple(cells)))
    records = results.of(row)
    return Reproduction(
        board=board,
        method=row.method,
        seeds=len({record["spec"]["seed"] for record in records}),
        sources=tuple(published),
        protocols=tuple(_protocol(results, row, each, sizes) for each in published),
        lines=tuple(lines),
    )


def _numbers(row: Row, metric: str, suite: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """What a source says in that metric, without means over other tasks than the suite's."""
    found = {name: value for (name, other), value in row.scores.items() if other == metric}
    every = {task for members in suite.values() for task in members}
    if 0 < len(every & set(found)) < len(every):
        for name in MEANS:
            found.pop(name, None)
    return found


def _measured(panel: Panel, name: str, suite: Mapping[str, Sequence[str]]) -> bool:
    """Whether that task was, or every task of the suite that the mean is about."""
    tasks = suite.get(name, (name,))
    if name in MEANS:
        tasks = [task for members in suite.values() for task in members]
    return set(tasks) <= set(panel.tasks)


def _number(value: float, interval: Array) -> Number:
    low, high = interval.tolist()
    return Number(value, low, high)


def _noise(
    panel: Panel, name: str, printed: Mapping[str, float], sizes: Mapping[str, int], count: int
) -> Array:
    """(count,): what drawing other test examples would add to a published number, in percent.

    Nothing is drawn for a task whose test set's size is not declared.
    """
    weights = panel.columns[name].weights(len(panel.tasks))
    variance = 0.0
    for t in np.flatnonzero(weights):
        task = panel.tasks[t]
        share = printed.get(task, 100 * panel.means[0, t]) / 100
        if task in sizes:
            variance += float(weights[t] ** 2 * share * (1 - share) / sizes[task])
    return 100 * math.sqrt(variance) * np.random.default_rng(0).standard_normal(count)


def _test_sizes(board: leaderboard.Leaderboard) -> dict[str, int]:
    """Task -> test examples, as the suite declares them."""
    sizes = {}
    for task in load_suite(board.suite).tasks:
        for name, split in (
            (task.name, board.protocol["test_split"]),
            *((target.name, target.split) for target in task.targets),
        ):
            if split in task.sizes:
                sizes[name] = task.sizes[split]
    return sizes


def _protocol(
    results: Results, row: leaderboard.Row, published: Row, sizes: Mapping[str, int]
) -> Protocol:
    record, tags = results.of(row)[0], published.tags
    spec, rules = record["spec"], record["spec"]["protocol"]
    measured = {
        "normalisation": _normalisation(rules),
        "selection": {"final-epoch": "last"}.get(rules.get("selection"), UNKNOWN),
        "image_source": spec.get("lineage", UNKNOWN),
        "tuning": _tuning(record),
        "epochs": str(rules.get("epochs", UNKNOWN)),
        "seeds": str(len({each["spec"]["seed"] for each in results.of(row)})),
    }
    apart = []
    if published.method != spec["method"]["name"]:
        apart.append(f"method: {spec['method']['name']} | {published.label}")
    size = None if row.trainable_parameters is None else row.trainable_parameters / 1e6
    if size is not None and abs(size - published.params_millions) > max(0.05 * size, 0.01):
        apart.append(f"parameters in millions: {size:.3g} | {published.params_millions:.3g}")
    backbone = spec["backbone"]["name"]
    if spec["backbone"]["checkpoint"] == RANDOM:
        backbone += " (random weights)"
    if backbone != tags["checkpoint"]:
        known = f"{published.backbone}, {published.pretraining}, checkpoint unknown"
        theirs = known if tags["checkpoint"] == UNKNOWN else tags["checkpoint"]
        apart.append(f"backbone: {backbone} | {theirs}")
    pixels = re.search(r"_(\d{3})(?!\d)", tags["checkpoint"])
    if pixels and int(pixels[1]) != spec["backbone"]["image_size"]:
        apart.append(f"image size: {spec['backbone']['image_size']} | {pixels[1]}")
    for tag, value in measured.items():
        if UNKNOWN != tags[tag] != value:
            apart.append(f"{tag.replace('_', ' ')}: {value} | {tags[tag]}")
    for task, keys in row.runs.items():
        total = results.cell(keys[0], task)["test"]["total"] if keys else None
        if total is not None and total != sizes.get(task, total):
            apart.append(f"test examples of {task}: {total:,} | {sizes[task]:,}")
    unknown = tuple(tag.replace("_", " ") for tag, text in tags.items() if text == UNKNOWN)
    return Protocol(tuple(apart), unknown)


def _normalisation(rules: Mapping[str, Any]) -> str:
    values = tuple(rules.get("mean", ())), tuple(rules.get("std", ()))
    names = [name for name, known in NORMALISATIONS.items() if known == values]
    return names[0] if names else f"mean {list(values[0])}, std {list(values[1])}"


def _tuning(record: Mapping[str, Any]) -> str:
    spec = record["spec"]
    if search := spec.get("search"):
        split = spec["protocol"]["search_val_split"]
        return f"{search['trials']} trials per task ({search['sampler']}) on {split}"
    if preset := spec["method"].get("preset"):
        return str(preset["chosen"])
    return "none, one setting for all tasks"


def to_frame(made: Sequence[Reproduction]) -> pd.DataFrame:
    """One row for each number of each source; percent and percentage points."""
    import pandas as pd

    lines = []
    for each in made:
        for line in each.lines:
            for source, protocol, cell in zip(
                each.sources, each.protocols, line.cells, strict=True
            ):
                if cell is None:
                    continue
                ours, gap = line.measured, cell.difference
                lines.append(
                    {
                        "suite": each.board.suite,
                        "fingerprint": each.board.fingerprint,
                        "method": each.method,
                        "task": line.name,
                        "metric": each.board.metric,
                        "measured": ours and ours.value,
                        "measured_low": ours and ours.low,
                        "measured_high": ours and ours.high,
                        "source_id": source.source_id,
                        "source": source.source,
                        "label": source.label,
                        "selection": source.tags["selection"],
                        "published": cell.published,
                        "printed": cell.printed,
                        "difference": gap and gap.value,
                        "difference_low": gap and gap.low,
                        "difference_high": gap and gap.high,
                        "protocol_differences": "; ".join(protocol.apart),
                        "unknown": "; ".join(protocol.unknown),
                    }
                )
    return pd.DataFrame(lines)
