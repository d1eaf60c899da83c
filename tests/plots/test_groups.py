"""Dots are means of groups, bars are intervals if all have one, and filled ones are the best."""

from __future__ import annotations

from dataclasses import replace

import pytest
import synthetic
from matplotlib.figure import Figure

from petlbench import plots
from petlbench.leaderboard import Row, Score
from petlbench.results import Results
from plots.drawing import plain

RESULTS = synthetic.results(synthetic.records(["lora", "linear", "vpt"], 3, 3, images=97))


def judged(results: Results, but: str = "") -> Results:
    """With made-up intervals, and none in one row."""

    def with_interval(score: Score | None) -> Score | None:
        return score and replace(score, low=score.mean - 0.02, high=score.mean + 0.01, best=True)

    def of(row: Row) -> Row:
        groups = {name: with_interval(score) for name, score in row.groups.items()}
        ranking = with_interval(row.ranking)
        return replace(row, groups=groups, ranking=ranking, letters="ab", as_good_as_best=True)

    rows = tuple(row if row.method == but else of(row) for row in results.board.rows)
    return replace(results, board=replace(results.board, rows=rows))


def shown(figure: Figure, panel: int, line: int) -> list[float]:
    return list(figure.axes[panel].lines[line].get_xdata())  # type: ignore[arg-type]


def test_means_and_deviations() -> None:
    figure = plots.draw("groups", RESULTS)
    board = RESULTS.board
    titles = [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes]
    assert titles == [board.ranking, *board.groups]
    for axes, group in zip(figure.axes[1:], board.groups, strict=True):
        scores = [row.groups[group] for row in board.rows]
        dots = [x for line in axes.lines if line.get_marker() == "o" for x in line.get_xdata()]  # type: ignore[union-attr]
        assert sorted(dots) == pytest.approx(sorted(100 * score.mean for score in scores if score))
        (bars,) = axes.containers[0].lines[2]  # type: ignore[attr-defined]
        for (left, right), score in zip(bars.get_segments(), scores, strict=True):
            assert score and score.std
            assert right[0] - left[0] == pytest.approx(200 * score.std)
    assert "bars ± 1 standard deviation, filled: the best" in plain(figure)


def test_intervals() -> None:
    figure = plots.draw("groups", judged(RESULTS))
    (bars,) = figure.axes[0].containers[0].lines[2]  # type: ignore[attr-defined]
    for (left, right), row in zip(bars.get_segments(), RESULTS.board.rows, strict=True):
        mean = 100 * row.ranking.mean  # type: ignore[union-attr]
        assert (left[0], right[0]) == pytest.approx((mean - 2, mean + 1))
    words = " ".join(plain(figure).split())
    assert "bars: 95% intervals, filled: not told apart from the best" in words
    assert "Methods that share a letter cannot be told apart" in words


def test_what_is_filled_where_scores_rank_is_what_the_letters_say() -> None:
    board = judged(RESULTS).board  # by their columns alone all are as good as the best
    rows = [replace(row, as_good_as_best=place < 1) for place, row in enumerate(board.rows)]
    figure = plots.draw("groups", replace(RESULTS, board=replace(board, rows=tuple(rows))))
    counts = [
        [len(line.get_xdata()) for line in axes.lines if line.get_marker() == "o"]  # type: ignore[arg-type]
        for axes in figure.axes
    ]
    assert counts == [[1, 2], *[[3, 0]] * len(board.groups)]  # filled, hollow


def test_intervals_and_deviations_are_never_mixed() -> None:
    figure = plots.draw("groups", judged(RESULTS, but="vpt"))
    assert "bars ± 1 standard deviation" in " ".join(plain(figure).split())
