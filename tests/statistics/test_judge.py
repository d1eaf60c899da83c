"""A judged board says what panel, bootstrap and ties say, and what is not in its intervals."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import synthetic

from petlbench.results import Results
from petlbench.statistics import panel as panels
from petlbench.statistics import ties
from petlbench.statistics.bootstrap import Bootstrap
from petlbench.statistics.judge import judge


def comparison(tmp_path: Path, methods: int, seeds: int, keep: bool = True) -> Results:
    found = synthetic.records(methods, 5, seeds)
    return synthetic.results(found, synthetic.write(tmp_path, found, keep))


@pytest.mark.parametrize("over_tasks", [False, True])
def test_rows_have_letters_and_intervals(tmp_path: Path, over_tasks: bool) -> None:
    results = comparison(tmp_path, 8, 3)
    rows = judge(results, over_tasks).board.rows
    panel = panels.of(results)
    boot = Bootstrap(panel)
    apart = ties.apart(boot, panel.ranking, over_tasks)
    for i, j in combinations(range(8), 2):
        assert bool(ties.split(rows[i].letters) & ties.split(rows[j].letters)) != apart[i, j]
    assert [row.as_good_as_best for row in rows] == (~apart[0]).tolist()
    wide = boot.interval(panel.ranking, over_tasks=True)
    for m, row in enumerate(rows):
        assert row.ranking and row.mean_of_groups == row.ranking
        assert row.over_tasks == pytest.approx(tuple(wide[:, m]))
        for column, score in {
            "mean of tasks": row.mean_of_tasks,
            **row.groups,
            **row.tasks,
        }.items():
            low, high = boot.interval(column)[:, m]
            assert score and (score.low, score.high) == pytest.approx((low, high))
            assert low < score.mean < high
    for column in panel.tasks:
        best = max(rows, key=lambda row: row.tasks[column].mean)  # type: ignore[union-attr]
        assert best.tasks[column].best  # type: ignore[union-attr]


def test_what_is_not_in_the_intervals_is_told(tmp_path: Path) -> None:
    told = judge(comparison(tmp_path / "a", 3, 1, keep=False)).board.judged
    assert "One seed: the noise of seeds is not in the intervals." in told
    assert "Predictions are not kept of any method" in told
    told = judge(comparison(tmp_path / "b", 3, 2)).board.judged
    assert "seeds and test examples" in told and "Bonferroni" in told
    assert "One seed" not in told and "not kept" not in told


def test_one_method_or_none(tmp_path: Path) -> None:
    (row,) = judge(comparison(tmp_path, 1, 2)).board.rows
    assert (
        row.as_good_as_best
        and row.ranking
        and np.isfinite([row.ranking.low, row.ranking.high]).all()
    )
    found = synthetic.records(1, 2, 1)[:1]
    failed = {**found[0], "status": "failed", "error": {"type": "RunError"}}
    nothing = synthetic.results([failed])
    assert judge(nothing) is nothing


def test_what_ranks_is_judged_once() -> None:
    """The mark of the ranking column and the letters ask about the same pairs."""
    for seeds in (1, 2, 3):
        board = judge(synthetic.results(synthetic.records(8, 4, seeds))).board
        for row in board.rows:
            assert row.ranking is not None and row.mean_of_groups is not None
            assert row.ranking.best == row.mean_of_groups.best == row.as_good_as_best


def test_one_task_in_every_group_says_nothing_of_others() -> None:
    results = synthetic.results(synthetic.records(4, {"cifar": "Natural", "eurosat": "Special"}, 3))
    here, asked = judge(results).board, judge(results, over_tasks=True).board
    assert [row.over_tasks for row in asked.rows] == [None] * 4
    assert [row.letters for row in asked.rows] == [row.letters for row in here.rows]
    assert asked.judged == here.judged and "nothing tells how tasks differ" in here.judged
