"""Shares of ranks are those of the resamples, and the words say what was drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from petlbench import plots
from petlbench.plots._base import styled
from petlbench.plots.rank_distribution import _ranks
from petlbench.results import Results
from petlbench.statistics import panel as panels
from petlbench.statistics.bootstrap import Bootstrap
from petlbench.statistics.judge import judge
from plots.drawing import assert_inside_and_apart, plain


def comparison(tmp_path: Path, methods: int) -> Results:
    found = synthetic.records(methods, 5, 2)
    return synthetic.results(found, synthetic.write(tmp_path, found))


@pytest.mark.parametrize("over_tasks", [False, True])
def test_shades_are_shares_of_resamples(tmp_path: Path, over_tasks: bool) -> None:
    results = comparison(tmp_path, 5)
    figure = plots.draw("rank-distribution", results, over_tasks=over_tasks)
    shades = figure.axes[0].collections[0].get_array()
    assert shades is not None
    draws = Bootstrap(panels.of(results)).draws("mean of groups", over_tasks)
    expected = np.zeros((5, 5))
    for draw in draws:
        for rank, method in enumerate(np.argsort(-draw)):
            expected[method, rank] += 1 / len(draws)
    np.testing.assert_allclose(np.reshape(shades, (5, 5)), expected, atol=1e-9)
    words = " ".join(plain(figure).split())
    drawn = "tasks, seeds and test examples" if over_tasks else "seeds and test examples"
    assert f"10,000 resamples of {drawn};" in words


def test_lines_reach_over_95_percent(tmp_path: Path) -> None:
    results = comparison(tmp_path, 12)
    axes = plots.draw("rank-distribution", results).axes[0]
    ranks = _ranks(Bootstrap(panels.of(results)).draws("mean of groups"))
    lines = axes.collections[2].get_segments()  # type: ignore[attr-defined]
    assert len(lines) == 12
    for method, line in enumerate(lines):
        low, high = line[:, 0]
        inside = ((ranks[:, method] >= low) & (ranks[:, method] <= high)).mean()
        assert inside >= 0.95
        for narrower in ((low + 1, high), (low, high - 1)):
            kept = (ranks[:, method] >= narrower[0]) & (ranks[:, method] <= narrower[1])
            assert kept.mean() < 0.976  # what either end gives up is more than 2.4%


@given(arrays(float, (3, 6), elements=st.sampled_from([0.0, 0.25, 0.5, 0.5 + 1e-12])))
def test_equal_methods_share_the_better_rank(draws: np.ndarray) -> None:
    for draw, ranks in zip(draws.round(9), _ranks(draws), strict=True):
        assert ranks.tolist() == [1 + sum(other > own for other in draw) for own in draw]


@pytest.mark.parametrize("style", ["screen", "paper"])
@pytest.mark.parametrize("methods", [5, 12, 32])
def test_judged_boards_stay_readable(tmp_path: Path, style: str, methods: int) -> None:
    results = judge(comparison(tmp_path, methods))
    with styled(style):
        figure = plots.draw("rank-distribution", results, style=style)
        assert_inside_and_apart(figure)
    words = " ".join(plain(figure).split())
    assert "share a letter" in words and "only the letters are corrected" in words
