"""Retrieval: the loss by an independent formula, what trains beside a method, whole runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLI
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

import petlbench
from petlbench import backbone, experiment, plan
from petlbench.adapted import load_adapted
from petlbench.data.vault import random_images
from petlbench.errors import RunError, UsageError
from petlbench.experiment import Machine, measure
from petlbench.problems import retrieval
from petlbench.request import Request
from petlbench.store import Store

CONFIGURATION: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 3, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "grey": (99,) * 3}


def features(count: int, dim: int, seed: int) -> Tensor:
    found = torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(found, dim=-1)


# -- the loss --------------------------------------------------------------------------------------


def by_hand(images: Tensor, texts: Tensor, owners: list[int], scale: float) -> float:
    """Pair by pair in float64, straight from the definition."""
    f, g = images.double().numpy(), texts.double().numpy()
    total = 0.0
    for i, owner in enumerate(owners):
        own = [j for j, other in enumerate(owners) if other == owner]
        for row in (scale * g @ f[i], scale * f @ g[i]):
            log_sum = np.log(np.exp(row - row.max()).sum()) + row.max()
            total += sum(log_sum - row[j] for j in own) / len(own) / 2
    return total / len(owners)


@given(
    owners=st.lists(st.integers(0, 5), min_size=1, max_size=12),
    scale=st.floats(0.1, 100),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_the_loss_is_its_definition(owners: list[int], scale: float, seed: int) -> None:
    count = len(owners)
    images, texts = features(6, 8, seed)[owners], features(count, 8, seed + 1)
    found = retrieval.contrastive(images, texts, torch.tensor(owners), scale)
    assert found.item() == pytest.approx(by_hand(images, texts, owners, scale), rel=1e-4, abs=1e-5)


def test_with_one_caption_each_it_is_the_loss_of_clip() -> None:
    images, texts = features(7, 8, 0), features(7, 8, 1)
    scores, own = 10 * images @ texts.T, torch.arange(7)
    entropy = torch.nn.functional.cross_entropy
    expected = (entropy(scores, own) + entropy(scores.T, own)) / 2
    found = retrieval.contrastive(images, texts, own, 10)
    torch.testing.assert_close(found, expected)


def test_captions_of_one_image_are_no_negatives_of_each_other() -> None:
    """Where nothing but the image's own captions is there, nothing is to be told apart."""
    image, texts = features(1, 8, 0).expand(3, -1), features(1, 8, 1).expand(3, -1)
    texts = texts.clone().requires_grad_(True)
    loss = retrieval.contrastive(image, texts, torch.zeros(3, dtype=torch.long), 10)
    (gradient,) = torch.autograd.grad(loss, texts)
    assert gradient.abs().max() < 1e-6
    assert loss.item() == pytest.approx(np.log(3), rel=1e-5)  # a uniform target, met exactly


# -- whole runs ------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """RSITMD in Karpathy's format: flat colours, two captions each."""
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIGURATION))
    folder = tmp_path / "captioned" / "rsitmd"
    (folder / "images").mkdir(parents=True)
    entries = []
    for index in range(24):
        name, colour = list(COLOURS.items())[index % 4]
        pixels = np.clip(np.array(colour) + index, 0, 255).astype(np.uint8)
        Image.fromarray(np.broadcast_to(pixels, (32, 32, 3))).save(
            folder / "images" / f"{index}.png"
        )
        split = "test" if index >= 16 else "val" if index >= 12 else "train"
        texts = [f"a {name} field number {index}", f"field {index} seen from above is {name}"]
        sentences = [{"raw": text} for text in texts]
        entries.append({"filename": f"{index}.png", "split": split, "sentences": sentences})
    (folder / "dataset_rsitmd.json").write_text(json.dumps({"images": entries}))
    return tmp_path / "captioned"


def arguments(data: Path, **changes: Any) -> dict[str, Any]:
    rules = {"image_size": 32, "epochs": 2, "warmup_epochs": 0, "batch_size": 8}
    rules |= {"precision": "fp32", "augmentation": "none", **changes.pop("rules", {})}
    request = {
        "suite": "retrieval",
        "tasks": ["rsitmd"],
        "backbone": "clip:./tiny.json",
        "checkpoint": "random",
        "data_root": str(data),
        "settings": {f"protocol.{name}": value for name, value in rules.items()},
        "seeds": 1,
        "jobs": 1,
        "threads": 1,
        "device": "cpu",
        "results": "results/r",
    }
    return request | changes


def test_a_comparison_from_files_to_the_leaderboard(data: Path) -> None:
    methods = ["zero_shot", "linear", "lora", "adapter", "full"]
    result = petlbench.run(**arguments(data, methods=methods))
    assert (result.done, result.failed) == (5, 0)
    records = {r["spec"]["method"]["name"]: r for r in Store("results/r").load()[0]}
    for record in records.values():
        metrics = record["test"]["metrics"]
        six = [metrics[f"{way}_r{k}"] for way in ("i2t", "t2i") for k in (1, 5, 10)]
        assert record["test"]["metric"] == "mean_recall"
        assert metrics["mean_recall"] == pytest.approx(sum(six) / 6)
        assert record["test"]["total"] == 8 and "correct" not in record["test"]
        assert record["test_reads"] == 1
    trains = {name: r["parameters"]["trainable"] for name, r in records.items()}
    heads = {name: r["parameters"]["head"] for name, r in records.items()}
    assert trains["zero_shot"] == trains["linear"] == 0 < trains["lora"] < trains["full"]
    assert heads == dict.fromkeys(methods, 0) | {"linear": 2 * 24 * 24}
    assert records["zero_shot"]["train_loss"] == [] and len(records["lora"]["train_loss"]) == 2
    board = result.board
    assert board is not None and board.metric == "mean_recall"
    assert {"i2t_r1", "t2i_r10"} <= set(board.report)
    assert result.frame()["metric:t2i_r1"].notna().all()


def test_training_finds_the_captions(data: Path) -> None:
    rules = {"epochs": 30, "learning_rate": 3e-3, "drop_path": 0.0, "batch_size": 24}
    result = petlbench.run(**arguments(data, methods=["zero_shot", "full"], rules=rules))
    scores = result.frame().set_index("method")["mean_of_tasks"]
    assert scores["full"] > scores["zero_shot"] + 0.1
    loss = next(r for r in Store("results/r").load()[0] if r["train_loss"])["train_loss"]
    assert loss[-1] < 0.7 * loss[0]


@pytest.mark.parametrize("towers", ["image", "text", "both"])
def test_what_is_frozen_is_computed_once(
    data: Path, monkeypatch: pytest.MonkeyPatch, towers: str
) -> None:
    """The same losses whether a frozen tower is computed once or in every step."""
    rules = {"towers": towers, "drop_path": 0.0}
    made = plan.make(Request(**arguments(data, methods=["lora"], rules=rules)))
    fast, _ = measure(made.specs[0], Machine(data_root=str(data)), lambda _: None)
    monkeypatch.setattr(backbone.Backbone, "frozen_stages", lambda self: 0)
    from petlbench.backbones.clip import CLIP

    monkeypatch.setattr(CLIP, "texts_frozen", False)
    slow, _ = measure(made.specs[0], Machine(data_root=str(data)), lambda _: None)
    assert (fast["frozen_stages"] > 0) == (towers == "text") and slow["frozen_stages"] == 0
    assert fast["train_loss"] == pytest.approx(slow["train_loss"], rel=1e-4)
    assert fast["test"] == slow["test"]


def test_several_devices_compare_the_pairs_of_one(data: Path) -> None:
    """24 pairs in batches of 7: neither they nor the last, of three, can be halved."""
    rules = {"batch_size": 7, "drop_last": False, "drop_path": 0.0, "towers": "both"}
    made = plan.make(Request(**arguments(data, methods=["lora"], rules=rules)))
    machine = Machine(data_root=str(data))
    one, _ = measure(made.specs[0], machine, lambda _: None)
    two, _ = measure(made.specs[0], replace(machine, devices_per_run=2), lambda _: None)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-5)
    assert two["test"] == one["test"]


def test_maps_start_as_the_identity(data: Path) -> None:
    made = plan.make(Request(**arguments(data, methods=["linear", "zero_shot"])))
    linear, plain = (experiment.prepare(spec, Machine()).eval() for spec in made.specs)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(linear(images), plain(images))
        tokens = plain.tokenize(["a red field", "a green one"])  # type: ignore[operator]
        of_text = [model.text_features(tokens) for model in (linear, plain)]  # type: ignore[operator]
    torch.testing.assert_close(*of_text)
    assert backbone.count_trained(plain) == (0, 0)


def test_a_run_is_a_model_again(data: Path, cli: CLI) -> None:
    petlbench.run(**arguments(data, methods=["lora"]))
    assert "mean recall" in cli("list", "runs", "--results", "results/r").out
    (record,) = Store("results/r").load()[0]
    adapted = load_adapted(record, results="results/r")
    assert adapted.model.image_features(torch.zeros(1, 3, 32, 32)).shape == (1, 24)
    with pytest.raises(UsageError, match="retrieves"):
        adapted.predict([data / "rsitmd" / "images"])


def test_bad_input(data: Path) -> None:
    with pytest.raises(UsageError, match="both towers: --backbone clip:"):
        rules = {"towers": "image", "head": "fresh"}
        request = arguments(data, methods=["lora"], backbone="vit_mini", rules=rules)
        plan.make(Request(**request))
    with pytest.raises(UsageError, match="vit_mini has none"):
        plan.make(Request(**arguments(data, methods=["lora"], backbone="vit_mini")))
    with pytest.raises(UsageError, match="mixup is for classes"):
        plan.make(Request(**arguments(data, methods=["lora"], rules={"mixup": 0.5})))
    with pytest.raises(UsageError, match="method convpass does not fit"):
        plan.make(Request(**arguments(data, methods=["convpass"])))
    with pytest.raises(RunError, match="has no captions"):
        retrieval.captions(random_images(3, 8, 2))
