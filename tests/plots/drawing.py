"""What tests of figures share: comparisons written by hand, and what a figure says."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import synthetic
from matplotlib.figure import Figure
from matplotlib.text import Text

from petlbench import plots
from petlbench.results import Results

SHOTS = [
    (f"{name}@{k}", f"{k} shot{'s' if k > 1 else ''}")
    for k in (1, 2, 4)
    for name in ("cars", "pets")
]
SHARES = [(f"{name}@{k}", f"{k} %") for k in ("0.63", "6.25", "12.5", "25") for name in "abcde"]
TASKS = [("a", "Natural"), ("b", "Structured")]
LONG = [f"lora(rank={2**i}, alpha={2**i}, dropout=0.1, bias=everything)" for i in range(12)]


def made(
    method: str, task: str, group: str, seed: int, value: float, **parts: Any
) -> dict[str, Any]:
    """A finished run whose test accuracy is `value`."""
    about = {"name": method, "label": method, "source": None, "config": {}}
    return {
        "key": hashlib.sha256(f"{method} {task} {seed}".encode()).hexdigest()[:16],
        "fingerprint": "0123456789ab",
        "status": "done",
        "spec": {
            "suite": "few-shot",
            "task": task,
            "group": group,
            "seed": seed,
            "method": about,
            "backbone": {"name": "vit_mini", "checkpoint": "ab" * 32, "image_size": 48},
            "protocol": {"name": "mini"},
        },
        "test": {"metric": "accuracy", "metrics": {"accuracy": value}, "total": 100},
        "parameters": {"trainable": 10, "head": 1},
        "stored_bytes": 1,
        "train_seconds": 1.0,
        "peak_bytes": None,
        "data": {"test": task, "train": f"{task} {seed}"},
        **parts,
    }


def search(*values: float | None) -> dict[str, Any]:
    trials = [{"config": {}, "learning_rate": 0.1, "weight_decay": 0.0, "value": v} for v in values]
    best = max(range(len(values)), key=lambda i: -1 if values[i] is None else values[i])
    return {"trials": trials, "winner": best, "metric": "accuracy", "sampler": "random"}


def peek(*values: float) -> dict[str, Any]:
    curve = [{"epoch": i + 1, "accuracy": value} for i, value in enumerate(values)]
    return {"metric": "accuracy", "curve": curve, "best": max(values)}


def value_of(method: str, task: str, seed: int) -> float:
    return 0.3 + int(hashlib.sha256(f"{method}{task}{seed}".encode()).hexdigest()[:4], 16) / 2**17


def sweep(
    methods: Sequence[str], tasks: Sequence[tuple[str, str]], **parts: Callable[[float], Any]
) -> list[dict[str, Any]]:
    return [
        made(m, t, g, seed, v, **{name: of(v) for name, of in parts.items()})
        for m, (t, g), seed in itertools.product(methods, tasks, (0, 1))
        for v in [value_of(m, t, seed)]
    ]


def results_of(records: list[dict[str, Any]], order: Sequence[tuple[str, str]]) -> Results:
    return synthetic.results(records, task_order=[task for task, _ in order])


def drawn(kind: str, records: list[dict[str, Any]], tasks: Sequence[tuple[str, str]]) -> Figure:
    return plots.draw(kind, results_of(records, tasks))


def plain(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


def marks(figure: Figure) -> dict[str, dict[str, float]]:
    """method -> mark -> value."""
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    series = {line.get_label(): line.get_xdata() for line in axes.lines}
    return {name: {str(k): x[i] for k, x in series.items()} for i, name in enumerate(names)}  # type: ignore[index]


def texts(figure: Figure) -> list[Text]:
    """All that can be read."""
    legends = [each.legend_ for each in figure.axes if each.legend_] + figure.legends
    found = [*figure.texts]
    for axes in figure.axes:
        found += [*axes.texts, axes.title]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())  # ticks outside of it are not drawn
            found += [
                tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
            ]
        found += [axes._left_title, axes.xaxis.label, axes.yaxis.label]  # type: ignore[attr-defined]
    found += [text for legend in legends for text in legend.get_texts()]
    return [text for text in found if text.get_text() and text.get_visible()]


def assert_inside_and_apart(figure: Figure) -> None:
    """No text leaves the page or covers another."""
    figure.canvas.draw()
    shown = texts(figure)
    page = figure.bbox
    boxes = [text.get_window_extent() for text in shown]
    for box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1
        assert page.y0 <= box.y0 and box.y1 <= page.y1
    for (a, one), (b, other) in itertools.combinations(zip(boxes, shown, strict=True), 2):
        assert not a.overlaps(b), (one, other)
