"""A panel's means are those of the leaderboard; its examples those of the predictions on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import synthetic

from petlbench.errors import UsageError
from petlbench.results import Results
from petlbench.statistics import panel as panels
from petlbench.statistics.panel import Column

TASKS = 7  # 3 groups of 3, 2 and 2: the two kinds of mean differ


def comparison(
    tmp_path: Path, methods: int = 4, seeds: int = 3, retrieval: bool = False, lost: int = 0
) -> Results:
    """`lost`: runs of the first method that were not made, of its last seeds."""
    found = synthetic.records(methods, TASKS, seeds, retrieval=retrieval)
    first = found[0]["spec"]["method"]["name"]
    found = [
        record
        for record in found
        if record["spec"]["method"]["name"] != first or record["spec"]["seed"] < seeds - lost
    ]
    return synthetic.results(found, synthetic.write(tmp_path, found))


@pytest.mark.parametrize("retrieval", [False, True])
@pytest.mark.parametrize("lost", [0, 2])
def test_means_are_those_of_the_board(tmp_path: Path, retrieval: bool, lost: int) -> None:
    results = comparison(tmp_path, retrieval=retrieval, lost=lost)
    panel = panels.of(results)
    sizes = [len(tasks) for _, tasks in panel.groups]
    assert sorted(sizes) == [2, 2, 3] and panel.tasks == results.board.tasks
    assert panel.scores.shape == (4, TASKS, 3)
    rows = {row.method: row for row in results.board.rows}
    for m, method in enumerate(panel.methods):
        row = rows[method]
        scores = {
            "mean of groups": row.mean_of_groups,
            "mean of tasks": row.mean_of_tasks,
            **row.groups,
            **row.tasks,
        }
        assert set(scores) == set(panel.columns)
        for column, score in scores.items():
            assert score is not None
            assert panel.mean(column)[m] == pytest.approx(score.mean, abs=1e-12)
    first = panel.methods.index(synthetic.METHODS[0])
    assert np.isnan(panel.scores[first]).sum() == lost * TASKS
    assert np.isnan(panel.scores).sum() == lost * TASKS


def test_weights_of_a_mean_of_groups() -> None:
    column = Column("mean of groups", ((0, 1, 2), (3,)))
    assert column.weights(5) == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2, 0])


def test_methods_and_tasks_may_be_chosen(tmp_path: Path) -> None:
    results = comparison(tmp_path)
    whole = panels.of(results)
    methods, tasks = whole.methods[::-2], [whole.tasks[5], whole.tasks[1]]
    part = panels.of(results, methods, tasks)
    assert part.methods == methods and part.tasks == (whole.tasks[1], whole.tasks[5])
    rows, columns = [whole.methods.index(m) for m in methods], [1, 5]
    np.testing.assert_array_equal(part.scores, whole.scores[np.ix_(rows, columns)])
    assert len(part.groups) == 2  # groups without a task are gone
    assert part.mean("mean of groups") == pytest.approx(whole.means[rows][:, columns].mean(axis=1))


def test_examples_are_means_over_seeds(tmp_path: Path) -> None:
    results = comparison(tmp_path)
    panel = panels.of(results)
    rows = {row.method: row for row in results.board.rows}
    for t, task in enumerate(panel.tasks):
        added = panel.examples(task)
        assert added.shape == (4, 200) and panel.totals[t] == 200
        np.testing.assert_allclose(added.mean(axis=1), panel.means[:, t], atol=1e-12)
        for m, method in enumerate(panel.methods):
            kept = [results.predictions(key, task) for key in rows[method].runs[task]]
            right = [each["labels"] == each["predictions"] for each in kept if each]
            np.testing.assert_allclose(added[m], np.mean(right, axis=0))


def test_examples_of_runs_are_those_of_each_score(tmp_path: Path) -> None:
    results = comparison(tmp_path, lost=1)
    panel = panels.of(results)
    task = panel.tasks[2]
    key = next(row for row in results.board.rows if row.method == "lora").runs[task][0]
    (results.store.artifacts / f"{key}.predictions.npz").unlink()
    added = panel.examples_of_runs(task)
    assert added.shape == (4, 3, 200)
    lora = panel.methods.index("lora")
    assert np.isnan(added[lora]).all()  # one of its runs is not kept, so none counts
    others = [m for m in range(4) if m != lora]
    np.testing.assert_allclose(added[others].mean(axis=2), panel.scores[others, 2])
    np.testing.assert_allclose(np.nanmean(added[others], axis=1), panel.examples(task)[others])


def test_lost_predictions_of_one_seed_are_those_of_the_method(tmp_path: Path) -> None:
    results = comparison(tmp_path)
    panel = panels.of(results)
    rows = {row.method: row for row in results.board.rows}
    key = rows[panel.methods[2]].runs[panel.tasks[0]][1]
    (results.store.artifacts / f"{key}.predictions.npz").unlink()
    added = panel.examples(panel.tasks[0])
    assert np.isnan(added).all(axis=1).tolist() == [False, False, True, False]
    assert not np.isnan(panel.examples(panel.tasks[1])).any()
    for path in results.store.artifacts.glob("*.npz"):
        path.unlink()
    assert panel.examples(panel.tasks[0]).shape == (4, 0)


def test_edited_predictions_are_refused(tmp_path: Path) -> None:
    results = comparison(tmp_path)
    panel = panels.of(results)
    key = results.board.rows[0].runs[panel.tasks[0]][0]
    path = results.store.artifacts / f"{key}.predictions.npz"
    arrays = dict(np.load(path))
    wrong = np.flatnonzero(arrays["predictions"] != arrays["labels"])[0]
    arrays["predictions"][wrong] = arrays["labels"][wrong]
    np.savez(path, **arrays)
    with pytest.raises(UsageError, match=f"{key} give accuracy .* one of the two was edited"):
        panel.examples(panel.tasks[0])
    path.write_bytes(b"broken")
    with pytest.raises(UsageError, match="cannot be read"):
        panel.examples(panel.tasks[0])


def test_incomplete_rows_stay_out(tmp_path: Path) -> None:
    found = synthetic.records(3, TASKS, 1)
    gone = found[0]["spec"]["method"]["name"]
    results = synthetic.results(found[1:], synthetic.write(tmp_path, found[1:]))
    assert gone not in panels.of(results).methods and len(panels.of(results).methods) == 2
    chosen = panels.of(results, [gone])
    assert np.isnan(chosen.scores).sum() == 1 and chosen.scores.size == TASKS
