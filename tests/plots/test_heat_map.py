"""Cells are differences to the baseline, whose own row says what it reached."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
import synthetic
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from petlbench import plots
from petlbench.errors import UsageError
from petlbench.results import Results
from plots.drawing import made, plain

METHODS = ["lora", "linear", "vpt"]


def cells(figure: Figure) -> dict[tuple[str, str], str]:
    """(method, column) -> its text."""
    found = {}
    for axes in figure.axes:
        columns = [label.get_text() for label in axes.get_xticklabels()]
        rows = [label.get_text() for label in axes.get_yticklabels()]
        keys = [(row, column) for row in rows for column in columns]
        found |= dict(zip(keys, (text.get_text() for text in axes.texts), strict=True))
    return found


def expected(results: Results, baseline: str) -> dict[tuple[str, str], str]:
    rows = {row.method: row for row in results.board.rows}
    found = {}
    for name, row in rows.items():
        scores = {results.board.ranking: row.ranking, **row.tasks}
        own = {results.board.ranking: rows[baseline].ranking, **rows[baseline].tasks}
        for column, score in scores.items():
            gap = f"{100 * (score.mean - own[column].mean):+.1f}".replace("-", "−")  # type: ignore[union-attr]
            value = f"{100 * score.mean:.1f}"  # type: ignore[union-attr]
            found[name, column] = value if name == baseline else gap
    return found


@pytest.mark.parametrize("baseline", ["", "vpt"])
@pytest.mark.parametrize("tasks", [3, 25])  # the second needs blocks of columns
def test_differences(baseline: str, tasks: int) -> None:
    results = synthetic.results(synthetic.records(METHODS, tasks, 2, images=37))
    figure = plots.draw("heat-map", results, baseline=baseline)
    assert (len(figure.axes) > 1) == (tasks == 25)
    assert cells(figure) == expected(results, baseline or "linear")


def test_without_linear_the_best_is_the_baseline() -> None:
    results = synthetic.results(synthetic.records(["lora", "vpt"], 2, 2, images=37))
    best = results.board.rows[0].method
    assert cells(plots.draw("heat-map", results)) == expected(results, best)


def test_one_method_alone_shows_its_scores() -> None:
    results = synthetic.results(synthetic.records(["lora"], 3, 2, images=37))
    figure = plots.draw("heat-map", results)
    assert cells(figure) == expected(results, "lora")
    assert "minus" not in plain(figure) and "points" not in plain(figure)


def test_numbers_stand_out_from_their_cells() -> None:
    ahead = [("m7", "a"), ("m6", "a")]
    records = [
        made(f"m{i}", task, "Natural", 0, 0.9 if (f"m{i}", task) in ahead else 0.3 + 0.05 * i)
        for i, task in itertools.product(range(8), "abcdef")
    ]
    results = synthetic.results(records)
    (axes,) = plots.draw("heat-map", results, baseline="m0").axes
    inks = set()
    for text, shade in zip(axes.texts, axes.collections[0].get_facecolor(), strict=True):
        low, high = sorted(luminance(each) for each in (shade, to_rgb(text.get_color())))
        assert (high + 0.05) / (low + 0.05) >= 4.5
        inks.add(text.get_color())
    assert inks == {"black", "white"}


def luminance(colour: Sequence[float]) -> float:
    """Relative luminance of sRGB, WCAG 2.1."""
    line = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour[:3]]
    return 0.2126 * line[0] + 0.7152 * line[1] + 0.0722 * line[2]


def test_an_unknown_baseline() -> None:
    results = synthetic.results(synthetic.records(METHODS, 1, 1, images=37))
    with pytest.raises(UsageError, match=r"unknown baseline 'linaer'\. Did you mean linear"):
        plots.draw("heat-map", results, baseline="linaer")
