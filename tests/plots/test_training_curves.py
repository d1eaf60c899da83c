"""Losses are means over seeds; a row without them is named."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from petlbench import plots
from petlbench.errors import UsageError
from plots.drawing import plain


def test_curves_are_means_over_seeds() -> None:
    records = synthetic.records(["lora", "vpt"], 2, 3, images=40)
    results = synthetic.results(records)
    figure = plots.draw("training-curves", results)
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(results.board.tasks)
    for axes, task in zip(figure.axes, results.board.tasks, strict=True):
        for line, row in zip(axes.lines[::2], results.board.rows, strict=True):
            losses = [
                record["train_loss"]
                for record in records
                if (record["spec"]["method"]["label"], record["spec"]["task"]) == (row.method, task)
            ]
            assert len(losses) == 3
            assert list(line.get_ydata()) == pytest.approx(np.mean(losses, axis=0))  # type: ignore[arg-type]


def test_what_does_not_train_is_named() -> None:
    records = synthetic.records(["lora", "zero_shot"], 2, 1, images=40)
    for record in records:
        if record["spec"]["method"]["name"] == "zero_shot":
            record["train_loss"] = []
    figure = plots.draw("training-curves", synthetic.results(records))
    assert "No train loss in some run, not drawn: zero_shot." in plain(figure)
    for record in records:
        record["train_loss"] = []
    assert not plots.load("training-curves").fits(synthetic.results(records))
    with pytest.raises(UsageError, match="nothing to plot"):
        plots.draw("training-curves", synthetic.results(records))
