"""The table, recomputed independently with pandas, numpy and the standard library."""

from __future__ import annotations

import itertools
import random
import statistics
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from petlbench import formats
from petlbench.errors import UsageError
from petlbench.formats.csv import to_frame
from petlbench.leaderboard import (
    DuplicateRuns,
    Leaderboard,
    MixedData,
    Row,
    build,
    compact,
    differences,
)
from petlbench.results import Results
from petlbench.store import Store

GROUPS = {"digits": "Natural", "fashion": "Natural", "count": "Structured"}
_keys = itertools.count()


def record(
    method: str = "lora", task: str = "digits", seed: int = 0, correct: int = 70, **other: Any
) -> dict[str, Any]:
    """A finished run over 100 test images; `error` makes it a failed one."""
    made: dict[str, Any] = {
        "schema": 1,
        "key": other.get("key", f"{next(_keys):016x}"),
        "fingerprint": other.get("fingerprint", "0123456789ab"),
        "spec": {
            "suite": other.get("suite", "mini"),
            "task": task,
            "group": other.get("group", GROUPS.get(task, "Natural")),
            "seed": seed,
            "method": {
                "name": method,
                "label": method,
                "source": other.get("source"),
                "config": {},
            },
            "backbone": {"name": "vit_mini", "checkpoint": "ab" * 32, "image_size": 48},
            "protocol": {
                "name": "mini",
                "epochs": other.get("epochs", 12),
                "normalisation": {"mean": [0.5], "std": other.get("std", [0.5])},
            },
        },
    }
    if "error" in other:
        error = {"type": other["error"], "message": "", "traceback": ""}
        return made | {"status": "failed", "error": error}
    return made | {
        "status": "done",
        "test": {"correct": correct, "total": 100},
        "parameters": {"trainable": other.get("trainable", 1000), "head": other.get("head", 10)},
        "stored_bytes": other.get("stored_bytes", 4000),
        "train_seconds": other.get("train_seconds", 2.0),
        "peak_bytes": other.get("peak_bytes"),
        "data": {"test": other.get("test", task), "train": other.get("train", f"{task} train")},
    }


def grid(method: str, corrects: dict[tuple[str, int], int], **other: Any) -> list[dict[str, Any]]:
    return [record(method, task, seed, c, **other) for (task, seed), c in corrects.items()]


def full(method: str, correct: int = 70, seeds: int = 2, **other: Any) -> list[dict[str, Any]]:
    return grid(method, {(t, s): correct + s for t in GROUPS for s in range(seeds)}, **other)


def only(records: list[dict[str, Any]]) -> Leaderboard:
    (board,) = build(records, list(GROUPS))
    return board


def written(boards: Sequence[Leaderboard], form: str) -> str:
    return formats.write([Results(board, {}, Store("nowhere")) for board in boards], form)


def row_of(board: Leaderboard, method: str) -> Row:
    (row,) = (row for row in board.rows if row.method == method)
    return row


counts = st.lists(st.integers(0, 100), min_size=9, max_size=9)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from("abcde"), counts, min_size=1))
def test_means_and_spreads_match_pandas(table: dict[str, list[int]]) -> None:
    cells = [(task, seed) for task in GROUPS for seed in range(3)]
    records = [r for m, cs in table.items() for r in grid(m, dict(zip(cells, cs, strict=True)))]
    board = only(records)
    frame = pd.DataFrame(
        {
            "method": r["spec"]["method"]["label"],
            "task": r["spec"]["task"],
            "group": r["spec"]["group"],
            "seed": r["spec"]["seed"],
            "accuracy": r["test"]["correct"] / r["test"]["total"],
        }
        for r in records
    )
    by_group = frame.groupby(["method", "seed", "group"]).accuracy.mean()
    expected = {
        "mean_of_tasks": frame.groupby(["method", "seed"]).accuracy.mean(),
        "mean_of_groups": by_group.groupby(["method", "seed"]).mean(),
    }
    for row in board.rows:
        for name, per_seed in expected.items():
            score = getattr(row, name)
            assert score.mean == pytest.approx(per_seed[row.method].mean())
            assert score.std == pytest.approx(per_seed[row.method].std(), abs=1e-12)
        for group, score in row.groups.items():
            seeds = by_group[row.method].xs(group, level="group")
            assert score is not None
            assert (score.mean, score.std) == pytest.approx((seeds.mean(), seeds.std()))
        for task, score in row.tasks.items():
            values = frame[(frame.method == row.method) & (frame.task == task)].accuracy.tolist()
            assert score is not None
            assert score.mean == pytest.approx(statistics.mean(values))
            assert score.std == pytest.approx(statistics.stdev(values), abs=1e-12)
    means = expected["mean_of_groups"].groupby("method").mean().round(9)
    ranks = means.rank(ascending=False, method="min").astype(int)
    assert {row.method: row.rank for row in board.rows} == ranks.to_dict()


@settings(max_examples=25, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from([(), ("count", "digits")]))
def test_order_of_records_does_not_matter(rng: random.Random, order: tuple[str, ...]) -> None:
    records = full("lora") + full("vpt", 60)[:-1] + full("mine", source="a" * 64, epochs=12)
    records += [*full("mine", 50, source="b" * 64), record("ssf", error="NonFiniteLoss")]
    records += full("lora", fingerprint="ffff")
    shuffled = rng.sample(records, len(records))
    assert written(build(shuffled, order), "json") == written(build(records, order), "json")


def test_group_and_task_means_differ_as_defined() -> None:
    row = only(grid("lora", {("digits", 0): 90, ("fashion", 0): 70, ("count", 0): 20})).rows[0]
    assert row.mean_of_groups is not None and row.mean_of_tasks is not None
    assert row.mean_of_groups.mean == pytest.approx((0.8 + 0.2) / 2)
    assert row.mean_of_tasks.mean == pytest.approx(0.6)
    assert row.mean_of_groups.std is None


def test_spread_of_the_mean_pairs_seeds() -> None:
    """Tasks that move in opposite directions cancel: the mean's spread is 0, the tasks' is not."""
    records = [
        record(task=task, seed=seed, correct=50 + sign * seed)
        for task, sign in (("digits", 10), ("count", -10))
        for seed in range(3)
    ]
    row = only(records).rows[0]
    assert row.mean_of_tasks is not None and row.mean_of_tasks.std == pytest.approx(0)
    assert row.tasks["digits"] is not None and row.tasks["digits"].std == pytest.approx(0.1)


def test_ties_share_a_rank() -> None:
    board = only(full("a", 70) + full("b", 80) + full("c", 80) + full("d", 60))
    assert [(row.method, row.rank) for row in board.rows] == [
        ("b", 1),
        ("c", 1),
        ("a", 3),
        ("d", 4),
    ]


def test_failed_run_makes_a_row_incomplete_and_empties_only_its_cells() -> None:
    records = [
        r for r in full("lora", 99) if (r["spec"]["task"], r["spec"]["seed"]) != ("count", 1)
    ]
    records += [record("lora", "count", 1, error="NonFiniteLoss"), *full("vpt")]
    board = only(records)
    row = row_of(board, "lora")
    assert not row.complete
    assert (row.rank, row.mean_of_groups, row.mean_of_tasks) == (None, None, None)
    assert row.tasks["count"] is None and row.groups["Structured"] is None
    assert row.groups["Natural"] is not None and row.tasks["digits"] is not None
    assert row.missing == ("count seed 1 (failed: NonFiniteLoss)",)
    assert row.train_seconds is None and row.trainable_parameters == 1000
    assert board.rows[0].method == "vpt" and board.rows[0].rank == 1
    assert any("lora is incomplete" in note for note in board.notes)


def test_missing_task_is_named_and_not_averaged_away() -> None:
    records = [r for r in full("lora") if r["spec"]["task"] != "fashion"] + full("vpt", 10)
    row = row_of(only(records), "lora")
    assert row.missing == ("fashion (not run)",)
    assert row.rank is None and row.mean_of_tasks is None and row.groups["Natural"] is None


def test_fewer_seeds_stay_ranked_but_are_flagged() -> None:
    records = full("lora", seeds=3) + full("vpt", 90, seeds=1) + full("ssf", 50, seeds=3)[:-1]
    board = only(records)
    vpt, ssf = row_of(board, "vpt"), row_of(board, "ssf")
    assert (vpt.rank, vpt.seeds, vpt.missing) == (1, (0,), ("seed 1 (not run)", "seed 2 (not run)"))
    assert (ssf.rank, ssf.seeds, ssf.missing) == (3, (0, 1), ("count seed 2 (not run)",))
    # every cell of a row comes from the same seeds, so the means are those of the tasks shown
    assert ssf.mean_of_tasks is not None
    tasks = [score.mean for score in ssf.tasks.values() if score]
    assert ssf.mean_of_tasks.mean == pytest.approx(np.mean(tasks)) == pytest.approx(0.505)
    assert sum("so ranked with more noise" in note for note in board.notes) == 2
    assert any("One seed" in note for note in board.notes)


def test_costs() -> None:
    records = [
        record(task=t, seed=s, head=h, train_seconds=sec + s, peak_bytes=100 * h, stored_bytes=h)
        for t, h, sec in (("digits", 10, 1.0), ("fashion", 30, 2.0), ("count", 20, 3.0))
        for s in range(2)
    ]
    row = only(records).rows[0]
    assert (row.trainable_parameters, row.trainable_parameters_with_head) == (1000, 1020)
    assert row.train_seconds == pytest.approx(6 + 1.5)
    assert (row.peak_bytes, row.stored_bytes) == (3000, 30)
    records[0]["peak_bytes"] = None
    records[1]["parameters"]["trainable"] = 1600
    row = only(records).rows[0]
    assert (row.peak_bytes, row.trainable_parameters) == (None, 1100)


def test_fingerprints_and_backbones_are_never_mixed() -> None:
    other = full("lora", 99, seeds=1, epochs=3, fingerprint="ffffffffffff", std=[0.2])
    boards = build(full("lora") + full("vpt", 50) + other)
    assert [board.records for board in boards] == [12, 3]
    assert [row.rank for board in boards for row in board.rows] == [1, 2, 1]
    assert differences(boards) == ["epochs: 12 | 3", "normalisation.std: [0.5] | [0.2]"]
    assert differences(boards[:1]) == []
    assert "Not ranked against each other" in written(boards, "markdown")
    elsewhere = full("vpt", 90)
    for item in elsewhere:
        item["spec"]["backbone"] = item["spec"]["backbone"] | {"checkpoint": "random"}
    boards = build(full("lora") + elsewhere)
    assert differences(boards) == [f"checkpoint: {'ab' * 6} | random"]


def test_versions_of_a_users_file_are_rows_of_their_own() -> None:
    records = full("mine", source="ab12cd" + "0" * 58) + full("mine", 60, source="ff" * 32)
    board = only(records + full("mine", 50) + full("other", source="cc" * 32))
    names = {row.method for row in board.rows}
    assert names == {"mine", "mine@ab12cd", "mine@ffffff", "other"}
    assert any("several versions" in note for note in board.notes)


def test_duplicate_runs_are_refused_with_both_keys() -> None:
    with pytest.raises(DuplicateRuns, match=r"lora on digits seed 0.*aaaa.*bbbb") as caught:
        build([record(key="aaaa"), record(key="bbbb")])
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, UsageError)
    with pytest.raises(DuplicateRuns):
        build([record(key="aaaa", correct=1), record(key="aaaa", correct=2)])
    again = record(key="aaaa")
    board = only([record(key="aaaa", error="X"), again, dict(again)])
    assert board.rows[0].complete


def test_mixed_data_is_refused() -> None:
    with pytest.raises(MixedData, match=r"'digits'.*test data differ.*one.*two"):
        build([record(test="one"), record("vpt", test="two")])
    with pytest.raises(MixedData, match="seed 0 training data"):
        build([record(train="one"), record("vpt", train="two")])
    assert only([record(train="one"), record(seed=1, train="two")]).rows[0].complete
    with pytest.raises(MixedData, match="group"):
        build([record(group="A"), record("vpt", group="B")])


def test_task_order() -> None:
    board = build(full("lora"), ["count", "fashion"])[0]
    assert list(board.groups.items()) == [("Structured", ("count",)),
                                          ("Natural", ("fashion", "digits"))]  # fmt: skip
    assert board.tasks == ("count", "fashion", "digits")
    assert build(full("lora"))[0].tasks == ("digits", "fashion", "count")


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (0, "0"), (768, "768"), (9216, "9.2K"), (99_949, "99.9K"), (99_951, "0.10M"),
     (327552, "0.33M"), (85798656, "85.80M")],
)  # fmt: skip
def test_compact(count: int | None, text: str) -> None:
    assert compact(count) == text


def test_import_stays_light() -> None:
    code = "import sys, petlbench.leaderboard; print([m for m in ('torch', 'pandas', 'rich', 'numpy') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- other metrics, other means, several test sets ------------------------------------------------


def measured(made: dict[str, Any], metric: str = "accuracy", **values: float) -> dict[str, Any]:
    return made | {"test": {"total": 100, "metric": metric, "metrics": values}}


def test_another_metric_makes_another_table() -> None:
    records = [
        measured(record("a"), accuracy=0.9, macro_f1=0.4),
        measured(record("b"), accuracy=0.8, macro_f1=0.7),
    ]
    (board,) = build(records)
    assert [row.method for row in board.rows] == ["a", "b"] and board.metric == "accuracy"
    assert board.rows[0].metrics["macro_f1"].mean == 0.4
    (other,) = build(records, metric="macro_f1")
    assert [row.method for row in other.rows] == ["b", "a"]
    assert other.rows[0].tasks["digits"].mean == 0.7 and other.metric == "macro_f1"  # type: ignore[union-attr]
    assert "Test macro F1 in %" in written([other], "markdown")
    with pytest.raises(UsageError, match=r"unknown metric 'macro_f2'\. Did you mean macro_f1"):
        build(records, metric="macro_f2")
    assert to_frame([board]).loc[0, "metric:macro_f1"] == 0.4


def test_the_tasks_own_metric_ranks_and_further_ones_have_columns() -> None:
    made = [
        measured(record("a"), "mean_recall", mean_recall=0.5, t2i_r1=0.25),
        measured(record("b"), "mean_recall", mean_recall=0.6, t2i_r1=0.125),
    ]
    (board,) = build(made, report=("t2i_r1",), ranking="mean of tasks")
    assert [row.method for row in board.rows] == ["b", "a"] and board.metric == "mean_recall"
    table = written([board], "markdown")
    assert "| T2I R@1 |" in table and "| 12.5 |" in table and "| **25.0** |" in table
    assert "Rank: by the mean of tasks" in table


def test_the_suite_says_which_mean_ranks() -> None:
    def scores(method: str, digits: int, fashion: int, count: int) -> list[dict[str, Any]]:
        of_task = {"digits": digits, "fashion": fashion, "count": count}
        return [record(method, task, correct=correct) for task, correct in of_task.items()]

    records = scores("a", 90, 90, 10) + scores("b", 60, 60, 55) + scores("c", 40, 40, 100)
    ranked = {
        ranking: [row.method for row in build(records, ranking=ranking)[0].rows]
        for ranking in ("mean of groups", "mean of tasks", "Natural", "Structured")
    }
    assert ranked == {
        "mean of groups": ["c", "b", "a"],  # 70, 57.5, 50
        "mean of tasks": ["a", "c", "b"],  # 63.3, 60, 58.3
        "Natural": ["a", "b", "c"],
        "Structured": ["c", "b", "a"],
    }
    (board,) = build(records, ranking="Structured")
    assert board.rows[0].ranking == board.rows[0].groups["Structured"]
    assert "Rank: by the mean of the group Structured" in written([board], "markdown")


def test_a_run_tested_on_several_sets_is_a_task_for_each() -> None:
    def run(method: str, source: int, sketch: int) -> dict[str, Any]:
        made = record(method, "imagenet", correct=source, group="Source", train_seconds=5.0)
        target = {"group": "Targets", "data": "sketch", "correct": sketch, "total": 100}
        target |= {"metric": "accuracy", "metrics": {"accuracy": sketch / 100}}
        return made | {"targets": {"sketch": target}}

    (board,) = build([run("a", 80, 30), run("b", 70, 50)], ranking="Targets")
    assert board.groups == {"Source": ("imagenet",), "Targets": ("sketch",)}
    assert board.records == 2 and [row.method for row in board.rows] == ["b", "a"]
    assert board.rows[0].tasks["sketch"].mean == 0.5  # type: ignore[union-attr]
    assert board.rows[0].train_seconds == 5.0  # trained once


def test_the_peek_gap() -> None:
    def peeked(method: str, task: str, values: list[float]) -> dict[str, Any]:
        curve = [{"epoch": i + 1, "accuracy": value} for i, value in enumerate(values)]
        made = measured(record(method, task), accuracy=values[-1])
        return made | {"peek": {"metric": "accuracy", "curve": curve, "best": max(values)}}

    records = [
        peeked("a", "digits", [0.5, 0.75, 0.25]),
        peeked("a", "count", [0.25, 0.5]),
        record("b", "digits"),
        record("b", "count"),
    ]
    (board,) = build(records)
    gaps = {row.method: row.peek_gap for row in board.rows}
    assert gaps["a"].mean == 0.25 and gaps["b"] is None  # type: ignore[union-attr]
    assert (
        "Peek gap" in written([board], "markdown")
        and "peek_gap" in written([board], "csv").splitlines()[0]
    )
    assert "eek gap" not in written(build(records[2:]), "markdown")


def test_test_images_that_were_trained_on_are_told() -> None:
    made = record("a")
    made["data"]["test_images_in_training"] = 3
    (board,) = build([made])
    assert "digits: 3 of 100 test images are also training images, pixel by pixel." in board.notes
