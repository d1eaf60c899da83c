"""The same verbs from Python: dataclasses and frames."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

import petlbench
from petlbench import method, results
from petlbench.store import Store


def test_public_names() -> None:
    for name in petlbench.__all__:
        assert getattr(petlbench, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = petlbench.nothing


def test_a_comparison(small: dict[str, Any], tmp_path: Path) -> None:
    result = petlbench.run(**small | {"methods": ["linear", "lora"], "seeds": 2})
    assert (result.done, result.failed, result.folder) == (4, 0, Path("results/small"))
    assert [file.name for file in result.files] == ["leaderboard.csv", "params_vs_accuracy.png"]
    assert result.board is not None and result.board.seeds == (0, 1)
    frame = result.frame()
    assert sorted(frame["method"]) == ["linear", "lora"]
    assert sorted(frame["rank"]) == [1, 2]

    csv = pd.read_csv(result.files[0])  # in one line
    assert sorted(csv["method"]) == ["linear", "lora"]
    gaps = ["missing"]  # empty text is NaN in a CSV
    pd.testing.assert_frame_equal(
        csv.drop(columns=gaps), frame.drop(columns=gaps), check_dtype=False
    )
    assert result.files[1].read_bytes().startswith(b"\x89PNG")

    rows = petlbench.load_results("results")
    assert len(rows) == 4 and set(rows["seed"]) == {0, 1}
    assert ((rows["accuracy"] * 500).round() == rows["correct"]).all()
    assert (rows["total"] == 500).all()
    assert (rows.loc[rows["method"] == "linear", "trainable_parameters"] == 0).all()
    pd.testing.assert_frame_equal(petlbench.load_results(tmp_path / "results/small"), rows)


def test_what_is_recorded_is_not_run_again(small: dict[str, Any]) -> None:
    petlbench.run(**small)
    (file,) = Path("results/small/records").glob("*.json")
    before = file.stat().st_mtime_ns
    result = petlbench.run(**small)
    assert (result.done, result.failed) == (1, 0) and result.board is not None
    assert file.stat().st_mtime_ns == before
    petlbench.run(**small | {"methods": ["linear", "bitfit"]})
    assert file.stat().st_mtime_ns == before
    assert len(list(file.parent.glob("*.json"))) == 2


def test_what_a_record_holds(small: dict[str, Any], checkpoint: Path) -> None:
    petlbench.run(**small | {"methods": ["lora"]})
    ((record,), problems) = Store("results/small").load()
    assert problems == []
    spec = record["spec"]
    assert (spec["task"], spec["seed"], spec["method"]["config"]["rank"]) == ("digits", 0, 8)
    assert len(spec["backbone"]["checkpoint"]) == 64
    assert record["test"]["total"] == 500 and record["test_reads"] == 1
    assert 0 < record["test"]["correct"] <= 500
    parameters = record["parameters"]
    assert parameters["trainable"] == 6 * 2 * 2 * 128 * 8
    assert parameters["head"] == 128 * 10 + 10
    assert record["stored_bytes"] == 4 * (parameters["trainable"] + parameters["head"])
    assert len(record["train_loss"]) == 1
    environment = record["environment"]
    assert environment["threads"] == 1 and environment["device"] == "cpu"
    assert {"torch", "timm", "numpy", "pillow", "python", "petlbench"} <= environment.keys()
    assert str(checkpoint) not in json.dumps(record)  # no path of this machine

    stem = Path("results/small/artifacts") / record["key"]
    kept = np.load(f"{stem}.predictions.npz")
    assert int((kept["predictions"] == kept["labels"]).sum()) == record["test"]["correct"]
    weights = load_file(f"{stem}.safetensors")
    assert sum(w.nbytes for w in weights.values()) == record["stored_bytes"]


@pytest.mark.parametrize(
    ("keep", "expected"),
    [("none", set()), ("predictions", {".npz"}), ("all", {".npz", ".safetensors"})],
)
def test_keeping_artifacts_is_a_choice(
    small: dict[str, Any], keep: str, expected: set[str]
) -> None:
    petlbench.run(**small | {"keep": keep})
    files = Path("results/small/artifacts").iterdir()
    assert {file.suffix for file in files} == expected


def test_bad_input_is_a_usage_error_and_touches_nothing(
    small: dict[str, Any], tmp_path: Path
) -> None:
    for changes in (
        {"methods": ["nothing"]},
        {"tasks": ["nothing"]},
        {"checkpoint": "nothing.pth"},
        {"settings": {"protocol.nothing": 1}},
    ):
        with pytest.raises(petlbench.UsageError, match="nothing"):
            petlbench.run(**small | changes)
    assert not list(tmp_path.iterdir())


def test_random_weights_are_the_same_every_time(small: dict[str, Any]) -> None:
    """The baseline without pre-training is a run like any other: the same spec, the same bits."""
    losses = []
    for number, folder in enumerate(("a", "b")):
        torch.manual_seed(number)  # whatever was drawn before
        petlbench.run(**small | {"checkpoint": "random", "results": folder})
        ((record,), _) = Store(folder).load()
        losses.append((record["train_loss"], record["test"]))
    assert losses[0] == losses[1]


def test_results_that_are_not_there_are_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name in ("absent", "empty", "file"):
        with pytest.raises(petlbench.UsageError, match=f"no results in .*{name}"):
            petlbench.load_results(tmp_path / name)


def test_a_folder_of_failed_runs_gives_an_empty_frame(small: dict[str, Any]) -> None:
    changes = {"protocol.learning_rate": 1e30, **small["settings"]}
    result = petlbench.run(**small | {"settings": changes})
    assert (result.done, result.failed) == (0, 1)
    frame = petlbench.load_results("results")
    assert len(frame) == 0


def test_records_in_files_are_told_how_to_unpack() -> None:
    Path("results/mini").mkdir(parents=True)
    Path("results/mini/records.jsonl").write_text("{}")
    with pytest.raises(petlbench.UsageError, match=r"petlbench merge results/mini/records.jsonl"):
        results.load("results")


def test_several_comparisons_below_one_folder(small: dict[str, Any]) -> None:
    petlbench.run(**small | {"results": "results/a"})
    settings = small["settings"] | {"protocol.learning_rate": 1e-3}
    petlbench.run(**small | {"results": "results/b", "settings": settings})
    found, problems = results.load("results")
    assert len(found) == 2 and problems == []
    fingerprints = {each.board.fingerprint for each in found}
    assert set(petlbench.load_results("results")["fingerprint"]) == fingerprints


def test_a_false_count_never_reaches_the_leaderboard(small: dict[str, Any]) -> None:
    source = method.builtin()["bitfit"].read_text()
    Path("liar.py").write_text(source.replace("shape.num_biases", "1"))
    result = petlbench.run(**small | {"methods": ["./liar.py"]})
    assert result.failed == 1
    (record,) = Store("results/small").load()[0]
    assert "declares 1" in record["error"]["message"]
