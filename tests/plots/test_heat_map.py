"""Cells are differences to the baseline, whose own row says what it reached."""

from __future__ import annotations

import pytest
import synthetic
from matplotlib.figure import Figure

from petlbench import plots
from petlbench.errors import UsageError
from petlbench.results import Results

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


def test_an_unknown_baseline() -> None:
    results = synthetic.results(synthetic.records(METHODS, 1, 1, images=37))
    with pytest.raises(UsageError, match=r"unknown baseline 'linaer'\. Did you mean linear"):
        plots.draw("heat-map", results, baseline="linaer")
