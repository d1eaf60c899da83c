"""Curves are means over seeds and data sets at amounts that all of them have."""

from __future__ import annotations

import numpy as np
import pytest

from petlbench.errors import UsageError
from plots.drawing import SHARES, SHOTS, drawn, plain, sweep, value_of


def test_accuracy_against_shots() -> None:
    records = sweep(["lora", "linear"], SHOTS)
    figure = drawn("accuracy-vs-shots", records, SHOTS)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["average of 2 data sets", "cars", "pets"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    for name, sets in (("average of 2 data sets", ("cars", "pets")), ("cars", ("cars",))):
        axes = panels[name]
        assert axes.get_xscale() == "log" and axes.xaxis.get_transform().base == 2  # type: ignore[attr-defined]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]
        for method, bars in zip(names, axes.containers, strict=True):
            x, y = bars[0].get_data()  # type: ignore[index]
            expected = [
                100 * np.mean([value_of(method, f"{d}@{k}", s) for d in sets for s in (0, 1)])
                for k in (1, 2, 4)
            ]
            assert list(x) == [1, 2, 4] and list(y) == pytest.approx(expected)
    assert "2 seeds, bars" in plain(figure) and "training images a class (shots)" in plain(figure)


def test_an_average_is_over_the_same_data_sets() -> None:
    tasks = [task for task in SHOTS if task[0] != "pets@2"]
    figure = drawn("accuracy-vs-shots", sweep(["lora"], tasks), tasks)
    average = figure.axes[0].containers[0][0].get_data()[0]  # type: ignore[index]
    assert list(average) == [1, 4]
    assert "Not averaged, as not every data set was run: 2." in plain(figure)
    one = [task for task in SHOTS if task[0].startswith("cars")]
    assert len(drawn("accuracy-vs-shots", sweep(["lora"], one), one).axes) == 1


def test_shares_are_amounts_too() -> None:
    figure = drawn("accuracy-vs-shots", sweep(["lora"], SHARES), SHARES)
    ticks = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert ticks == ["0.63", "6.25", "12.5", "25"]
    assert "share of the training images (%)" in plain(figure)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([("digits", "Natural"), ("count", "Structured")], "no amounts .*: .*Natural, Structured"),
        ([("a@1", "1 shot"), ("a@2", "2 %")], "no amounts"),
        ([("a@0", "0 shots"), ("a@2", "2 shots")], "no amounts"),
        ([("a", "1 shot"), ("b", "2 shots")], "no amounts"),
        ([("a@1", "1 shot"), ("b@1", "1 shot")], "all runs .* are of 1 shot"),
    ],
)
def test_groups_that_are_no_amounts(tasks: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        drawn("accuracy-vs-shots", sweep(["lora"], tasks), tasks)
