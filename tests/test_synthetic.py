"""Synthetic comparisons: read as real ones are, repeatable, and true to their predictions."""

from __future__ import annotations

from pathlib import Path

import pytest
import synthetic

from petlbench.results import load


@pytest.mark.parametrize("retrieval", [False, True])
def test_read_from_disk_and_true_to_their_predictions(tmp_path: Path, retrieval: bool) -> None:
    found = synthetic.records(4, 5, 2, images=50, retrieval=retrieval)
    ((comparison,), problems) = load(synthetic.write(tmp_path / "made", found))
    assert not problems and comparison.board.records == len(found) == 40
    assert all(row.rank for row in comparison.board.rows)
    for record in found:
        stored = comparison.predictions(record["key"], record["spec"]["task"])
        assert stored is not None and synthetic._test(stored) == record["test"]
    rows = synthetic.results(found).board.rows
    assert {row.method: row.ranking for row in rows} == {
        row.method: row.ranking for row in comparison.board.rows
    }


def test_the_same_arguments_give_the_same_records() -> None:
    assert synthetic.records(3, 2, 2) == synthetic.records(3, 2, 2)
    assert synthetic.records(3, 4, 3)[0] == synthetic.records(5, 2, 1)[0]


def test_what_may_be_asked_for() -> None:
    names = synthetic.task_names(21)
    assert len(names) == 21 and list(synthetic.task_names(3).values()) == [*synthetic.TASKS]
    assert len(set(synthetic.method_names(40))) == 40
    found = synthetic.records(["mine"], {"t": "G"}, 1, search=4, peek=True)[0]
    assert len(found["search"]["trials"]) == 4
    assert found["peek"]["curve"][-1]["accuracy"] == found["test"]["metrics"]["accuracy"]
