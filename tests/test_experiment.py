"""Every fast path of a run against the slow one, on the same seed."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from petlbench import experiment, plan
from petlbench.experiment import Machine, measure
from petlbench.problems import _feed
from petlbench.request import Request
from petlbench.spec import RunSpec


def spec_of(small: dict[str, Any], method: str, **rules: Any) -> RunSpec:
    settings = {f"protocol.{name}": value for name, value in rules.items()}
    request = small | {"methods": [method], "settings": small["settings"] | settings}
    return plan.make(Request(**request)).specs[0]


def outcome(spec: RunSpec, **machine: Any) -> tuple[dict[str, Any], np.ndarray[Any, Any]]:
    """What was measured, and the predictions."""
    import io

    measured, artifacts = measure(spec, Machine(keep="predictions", **machine), lambda _: None)
    with np.load(io.BytesIO(artifacts[".predictions.npz"])) as stored:
        return measured, stored["predictions"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_features_once_are_the_backbone_in_every_epoch(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    spec = spec_of(small, "linear", epochs=5, precision=precision)
    fast, predictions = outcome(spec)
    monkeypatch.setattr(_feed, "FEATURES_AT_MOST", 0)
    slow, expected = outcome(spec)
    assert fast["frozen_stages"] > 1 and slow["frozen_stages"] == 0
    assert fast["train_loss"] == pytest.approx(slow["train_loss"], rel=1e-4)
    assert (predictions == expected).mean() >= 0.99


def test_a_method_that_trains_in_the_first_block_computes_everything(small: dict[str, Any]) -> None:
    measured, _ = outcome(spec_of(small, "convpass"))
    assert (measured["frozen_stages"], measured["micro_batches"]) == (0, 1)


@pytest.mark.parametrize("method", ["convpass", "vpt"])
def test_recomputing_changes_no_prediction(small: dict[str, Any], method: str) -> None:
    spec = spec_of(small, method, drop_path=0.2)
    plain, predictions = outcome(spec)
    again, repeated = outcome(spec, recompute=True)
    assert plain["train_loss"] == again["train_loss"]
    assert np.array_equal(predictions, repeated)


def test_the_attention_kernels_agree(small: dict[str, Any]) -> None:
    spec = spec_of(small, "convpass", epochs=2)
    found = [outcome(spec, attention=kernel) for kernel in ("explicit", "fused")]
    (explicit, predictions), (fused, others) = found
    assert explicit["train_loss"] == pytest.approx(fused["train_loss"], rel=1e-4)
    assert (predictions == others).mean() >= 0.99


def test_bf16_is_near_fp32(small: dict[str, Any]) -> None:
    found = [outcome(spec_of(small, "convpass", epochs=2, precision=p)) for p in ("fp32", "bf16")]
    (full, predictions), (half, others) = found
    assert half["train_loss"] == pytest.approx(full["train_loss"], rel=0.02)
    assert (predictions == others).mean() >= 0.9


def test_out_of_memory_is_survived_and_recorded(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device that holds seven images at a time: the same losses, in four parts of five."""
    from petlbench.backbone import Backbone

    spec = spec_of(small, "lora")
    whole, predictions = outcome(spec)
    forward = Backbone.forward

    def limited(self: Backbone, x: torch.Tensor, start: int = 0) -> torch.Tensor:
        if len(x) > 7:
            raise torch.OutOfMemoryError("simulated")
        return forward(self, x, start)

    monkeypatch.setattr(Backbone, "forward", limited)
    parts, others = outcome(spec)
    assert (whole["micro_batches"], parts["micro_batches"]) == (1, 4)
    assert parts["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
    assert (predictions == others).mean() >= 0.99


def test_the_record_says_how_it_was_computed(small: dict[str, Any]) -> None:
    made = plan.make(Request(**small | {"attention": "fused", "recompute": True}))
    record = experiment.run(made.specs[0], made.store, made.machine)
    environment = record["environment"]
    assert (environment["attention"], environment["recompute"]) == ("fused", True)
    assert environment["compile"] is False
    assert record["spec"]["protocol"]["precision"] == "fp32"
    # how it is computed changes the last bits at most, and is no part of the run's identity
    again = plan.make(Request(**small | {"attention": "explicit"}))
    assert again.specs[0].key == made.specs[0].key


def test_images_that_do_not_fit_stay_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = torch.zeros(10, 3, 4, 4, dtype=torch.uint8)
    assert _feed.resident(pixels, torch.device("cpu")) is pixels
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 4 * pixels.nbytes - 1))
    assert _feed.resident(pixels, torch.device("cuda")) is pixels


def test_prepare_does_not_depend_on_how_it_is_computed(small: dict[str, Any]) -> None:
    """The same initial weights whatever the machine's options."""
    spec = spec_of(small, "convpass", precision="bf16")
    models = [
        experiment.prepare(spec, machine)
        for machine in (Machine(), Machine(attention="fused", recompute=True))
    ]
    exact = experiment.prepare(replace(spec, rules=spec.rules | {"precision": "fp32"}), Machine())
    for a, b, c in zip(*(model.parameters() for model in (*models, exact)), strict=True):
        assert torch.equal(a, b) and torch.equal(a, c.to(a.dtype))


def test_asking_for_the_commit_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a process that is killed then leaves the checkout's index locked."""

    def git(*arguments: str) -> str:
        own = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run([*own, *arguments], check=True, capture_output=True, text=True).stdout

    file = tmp_path / "petlbench" / "experiment.py"
    file.parent.mkdir()
    file.write_text("one")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    monkeypatch.setattr(experiment, "__file__", str(file))
    os.utime(file, (0, 0))  # the index is out of date, and git status would like to renew it
    index = (tmp_path / ".git" / "index").read_bytes()
    assert experiment._git_commit() == git("rev-parse", "HEAD").strip()
    assert (tmp_path / ".git" / "index").read_bytes() == index
    file.write_text("two")
    assert experiment._git_commit() == git("rev-parse", "HEAD").strip() + "+"
