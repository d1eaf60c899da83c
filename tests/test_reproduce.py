"""Measured against published, with comparisons that nobody ran."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import synthetic
from conftest import CLI

from petlbench import published
from petlbench.errors import UsageError
from petlbench.reproduce import Reproduction, reproduce, to_frame
from petlbench.spec import identify
from petlbench.task import load_suite

TASKS = {task.name: task.group for task in load_suite("vtab-1k").tasks}
ORIG = "vit_base_patch16_224.orig_in21k"
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}


def records(
    methods: tuple[str, ...] = ("convpass",),
    tasks: dict[str, str] = TASKS,
    seeds: int = 1,
    **rules: Any,
) -> list[dict[str, Any]]:
    """Runs as Convpass was run: its checkpoint, normalisation, images and epochs."""
    made = synthetic.records(methods, tasks, seeds, suite="vtab-1k")
    for record in made:
        spec = record["spec"]
        spec["backbone"] = {"name": ORIG, "checkpoint": "ab" * 32, "image_size": 224}
        spec["protocol"] |= {"epochs": 100, "selection": "final-epoch", **IMAGENET, **rules}
        spec["lineage"] = "noah-jpeg"
        record["parameters"]["trainable"] = 327_552
        record["key"], record["fingerprint"] = identify(spec)
    return made


def one(made: list[dict[str, Any]], **asked: Any) -> Reproduction:
    how = {"method": "convpass", "suite": "vtab-1k", "source": "convpass"} | asked
    (found,) = reproduce([synthetic.results(made)], **how)
    return found


def test_differences_are_measured_minus_published() -> None:
    made = records()
    found = one(made)
    scores = {r["spec"]["task"]: 100 * r["test"]["metrics"]["accuracy"] for r in made}
    table = published.select("vtab-1k", "convpass", source="convpass")
    table = table[(table["table"] == "Table 1") & (table["label"] == "Convpass")]
    theirs = table.set_index("task")["percent"]
    assert [line.name for line in found.lines[:19]] == list(TASKS)
    groups = published.groups("vtab-1k")
    by_group = [np.mean([scores[task] for task in members]) for members in groups.values()]
    for line in found.lines:
        ours = {
            **scores,
            **dict(zip(groups, by_group, strict=True)),
            "mean of tasks": np.mean(list(scores.values())),
            "mean of groups": np.mean(by_group),
        }[line.name]
        assert line.measured is not None
        assert line.measured.value == pytest.approx(ours)
        cell = line.cells[0]
        assert cell is not None and cell.difference is not None
        assert cell.printed == (line.name != "mean of tasks")  # which Convpass does not print
        if line.name in theirs:
            assert cell.published == theirs[line.name]
        assert cell.difference.value == pytest.approx(ours - cell.published)
        assert cell.difference.low < cell.difference.value < cell.difference.high


def test_intervals_are_those_of_two_binomial_numbers() -> None:
    """One seed and 200 images against the declared test set: sd² = pq/200 + PQ/N."""
    made = records()
    found = one(made)
    sizes = {task.name: task.sizes["test"] for task in load_suite("vtab-1k").tasks}
    variances = {}
    for line in found.lines[:19]:
        assert line.measured is not None
        p, cell = line.measured.value / 100, line.cells[0]
        assert cell is not None and cell.difference is not None
        q = cell.published / 100
        variances[line.name] = p * (1 - p) / 200 + q * (1 - q) / sizes[line.name]
        width = 2 * 1.96 * 100 * np.sqrt(variances[line.name])
        assert cell.difference.high - cell.difference.low == pytest.approx(width, rel=0.08)
    mean = next(line for line in found.lines if line.name == "mean of tasks").cells[0]
    assert mean is not None and mean.difference is not None
    width = 2 * 1.96 * 100 * np.sqrt(sum(variances.values())) / 19
    assert mean.difference.high - mean.difference.low == pytest.approx(width, rel=0.08)


def test_seeds_widen_the_measured_side() -> None:
    def width(made: list[dict[str, Any]]) -> float:
        found = one(made).lines[0].measured
        assert found is not None
        return found.high - found.low

    def tested(*correct: int) -> list[dict[str, Any]]:
        made = records(tasks={"cifar": "Natural"}, seeds=len(correct))
        for record, count in zip(made, correct, strict=True):
            scores = {"accuracy": count / 200}
            record["test"] |= {"correct": count, "metrics": scores}
        return made

    examples = 2 * 1.96 * 100 * np.sqrt(0.6 * 0.4 / 200)
    assert width(tested(120, 120, 120)) == pytest.approx(examples, rel=0.05)
    assert width(tested(100, 120, 140)) > 2 * examples


def test_what_was_not_measured_is_listed_and_enters_no_mean() -> None:
    found = one(records(tasks={t: g for t, g in TASKS.items() if g != "Structured"}))
    lines = {line.name: line for line in found.lines}
    for name in ("kitti", "Structured", "mean of groups", "mean of tasks"):
        assert lines[name].measured is None
        cell = lines[name].cells[0]
        assert cell is not None
        assert cell.difference is None
    for name in ("cifar", "Natural", "Specialized"):
        assert lines[name].measured is not None


def test_a_failed_task_is_not_measured() -> None:
    made = records()
    failed = next(r for r in made if r["spec"]["task"] == "svhn")
    failed |= {"status": "failed", "error": {"type": "RunError", "message": "", "traceback": ""}}
    lines = {line.name: line for line in one(made).lines}
    assert lines["svhn"].measured is None
    assert lines["Natural"].measured is None
    assert lines["eurosat"].measured is not None


def test_protocol_differences_are_named() -> None:
    sources = one(records()).protocols[0]
    assert sources.apart == (
        "selection: last | best-on-test",
        "tuning: none, one setting for all tasks | scale of 5 per task; split not stated",
        *(f"test examples of {t.name}: 200 | {t.sizes['test']:,}" for t in _tasks()),
    )
    assert sources.unknown == ()
    made = records(epochs=3, mean=[0.5] * 3, std=[0.5] * 3)
    for record in made:
        record["spec"] |= {"lineage": "tfds", "search": {"trials": 8, "sampler": "tpe"}}
        record["spec"]["backbone"] |= {"checkpoint": "random", "image_size": 96}
        record["parameters"]["trainable"] = 163_776
    told = one(made).protocols[0].apart
    assert told[:8] == (
        "parameters in millions: 0.164 | 0.33",
        f"backbone: {ORIG} (random weights) | {ORIG}",
        "image size: 96 | 224",
        "normalisation: half | imagenet",
        "selection: last | best-on-test",
        "image source: tfds | noah-jpeg",
        "tuning: 8 trials per task (tpe) on val | scale of 5 per task; split not stated",
        "epochs: 3 | 100",
    )


def _tasks() -> Any:
    return load_suite("vtab-1k").tasks


def test_what_is_not_known_of_the_published_run_is_said() -> None:
    found = one(records(("ssf",)), method="ssf", source="dyt")
    assert found.protocols[0].unknown == ("tuning", "seeds")
    assert any(text.startswith("backbone: ") and "augreg" in text for text in _apart(found))


def test_another_method_of_the_same_name_is_told() -> None:
    found = one(records(("lora",)), method="lora", source="noah")
    assert _apart(found)[0] == "method: lora | LoRA"


def _apart(found: Reproduction) -> tuple[str, ...]:
    return found.protocols[0].apart


def test_retrieval_compares_the_metric_of_the_board() -> None:
    made = synthetic.records(
        ("adaptformer",), {"ucm": "Remote sensing"}, 1, retrieval=True, suite="retrieval"
    )
    for metric, value in ((None, 53.69), ("t2i_r1", 18.74)):
        results = synthetic.results(made, metric=metric)
        for record in made:
            record["spec"]["protocol"]["test_split"] = "test"
        (found,) = reproduce([results], "adaptformer", "retrieval")
        lines = {line.name: line for line in found.lines}
        cell = lines["ucm"].cells[0]
        assert cell is not None
        assert cell.published == value


def test_a_mean_over_other_tasks_is_not_compared() -> None:
    """PACE's mean has ImageNet and four variants; the suite has two of them a second time."""
    groups = published.groups("domain-generalisation")
    tasks = {task: group for group, members in groups.items() for task in members}
    made = synthetic.records(("adapter",), tasks, 1, suite="domain-generalisation")
    for record in made:
        record["spec"]["method"]["name"] = "Adapter"  # as PACE calls it
        record["spec"]["protocol"]["test_split"] = "val"
    (found,) = reproduce([synthetic.results(made)], "Adapter", "domain-generalisation", "pace")
    lines = {line.name: line for line in found.lines}
    assert lines["mean of tasks"].measured is not None
    assert lines["mean of tasks"].cells == (None,)
    assert lines["imagenet-r"].cells[0] is not None


def test_all_sources_or_one() -> None:
    made = records()
    every, some = one(made, source=None), one(made)
    assert {"arXiv:2207.07039", "arXiv:2409.16434"} <= {s.source_id for s in every.sources}
    assert {s.source_id for s in some.sources} == {"arXiv:2207.07039"}
    frame = to_frame([every])
    assert set(frame["source_id"]) == {s.source_id for s in every.sources}
    row = frame[(frame["task"] == "cifar") & (frame["source_id"] == "arXiv:2207.07039")].iloc[0]
    assert row["difference"] == pytest.approx(row["measured"] - 72.3)
    assert "selection: last | best-on-test" in row["protocol_differences"]


def test_the_same_every_time() -> None:
    assert to_frame([one(records())]).equals(to_frame([one(records())]))


def test_nothing_to_compare_is_refused() -> None:
    results = [synthetic.results(records(("lora",)))]
    with pytest.raises(UsageError, match=r"petlbench run --suite vtab-1k --methods convpass"):
        reproduce(results, "convpass", "vtab-1k")
    with pytest.raises(UsageError, match="Did you mean convpass"):
        reproduce(results, "convpas", "vtab-1k")
    with pytest.raises(UsageError, match="no published number"):
        reproduce(results, "mona", "vtab-1k")


def test_the_command(cli: CLI, tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path / "results", records(tasks={"cifar": "Natural"}))
    words = ("reproduce", "convpass", "--suite", "vtab-1k", "--results", str(folder))
    shown = cli(*words)
    assert shown.code == 0
    assert "not measured" in shown.out
    assert "published [1]" in shown.out
    assert "selection: last | best-on-test" in shown.out
    assert "2 more published rows" in shown.out
    frame = pd.read_csv(io.StringIO(cli(*words, "--format", "csv").out))
    assert frame["difference"].notna().sum() == 4  # of cifar, in four rows
    cli(*words, "-o", str(tmp_path / "r.txt"))
    assert "published [1]" in (tmp_path / "r.txt").read_text()
    cli(*words, "--source", "konvpass").refused("Did you mean convpass")
    cli(*words, "--format", "cvs").refused("Did you mean csv")
    cli(*words, "--format", "csv", "-o", "r.txt").refused("a file of format csv ends in .csv")


def test_the_command_needs_no_torch(tmp_path: Path) -> None:
    folder = synthetic.write(tmp_path, records(tasks={"cifar": "Natural"}), keep=False)
    words = ["reproduce", "convpass", "--suite", "vtab-1k", "--results", str(folder)]
    code = (
        "import sys\nfrom petlbench.cli import dispatch\n"
        f"dispatch({words})\nsys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
