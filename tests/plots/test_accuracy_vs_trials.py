"""The best so far of every trial, under one budget."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from petlbench.errors import UsageError
from plots.drawing import TASKS, drawn, made, plain, search, sweep


def steps(figure: Figure) -> dict[str, list[float]]:
    """What each step line shows, by the name beside its end."""
    axes = figure.axes[0]
    lines = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    return {
        text.get_text(): list(line.get_ydata())  # type: ignore[arg-type]
        for text, line in zip(axes.texts, lines, strict=True)
    }


def test_accuracy_against_trials() -> None:
    records = [
        made("lora", "a", "Natural", 0, 0.5, search=search(0.5, 0.7, 0.6)),
        made("lora", "a", "Natural", 1, 0.5, search=search(0.5, 0.7, 0.6)),
        made("lora", "b", "Structured", 0, 0.5, search=search(None, 0.1, 0.3)),
        made("lora", "b", "Structured", 1, 0.5, search=search(None, 0.1, 0.3)),
        *sweep(["vpt"], TASKS, search=lambda _: search(0.2, 0.1, 0.4)),
    ]
    figure = drawn("accuracy-vs-trials", records, TASKS)
    shown = steps(figure)
    assert list(shown) == ["lora", "vpt"]
    assert np.isnan(shown["lora"][0]) and shown["lora"][1:] == pytest.approx([40, 50])
    assert shown["vpt"] == pytest.approx([20, 20, 40])
    assert "3 trials a task (random)" in plain(figure)


def test_budgets_are_not_mixed() -> None:
    records = sweep(["lora"], TASKS, search=lambda _: search(0.1, 0.2))
    records += sweep(["vpt"], TASKS, search=lambda _: search(0.1, 0.2, 0.3))
    for kind in ("accuracy-vs-trials", "default-vs-tuned"):
        with pytest.raises(UsageError, match="searches of 2 and 3 trials"):
            drawn(kind, records, TASKS)
