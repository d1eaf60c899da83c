"""A real pre-trained checkpoint and real images, where the machine has them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import petlbench
from petlbench import weights
from petlbench.data.normalise import Normalise
from petlbench.evaluate import predict
from petlbench.store import Store

SHARED = Path(__file__).resolve().parents[2] / "shared"
CHECKPOINT = SHARED / "weights" / "vit_small_patch14_dinov2_saliency.safetensors"
CIFAR = SHARED / "data" / "vtab-1k" / "cifar"
BACKBONE = "vit_small_patch14_dinov2"

pytestmark = pytest.mark.skipif(
    not (CHECKPOINT.is_file() and CIFAR.is_dir()), reason="no real checkpoint and images here"
)


def test_the_checkpoint_fits_completely_and_sees() -> None:
    spec = weights.specify(BACKBONE, str(CHECKPOINT))
    model = weights.build(spec, 98)
    block = model.shape.blocks[0]
    assert (block.dim, len(model.shape.blocks), block.grid) == (384, 12, (7, 7))
    lines = (CIFAR / "train800.txt").read_text().splitlines()[:8]
    images = []
    for line in lines:
        with Image.open(CIFAR / line.rpartition(" ")[0]) as image:
            pixels = np.asarray(image.convert("RGB").resize((98, 98), Image.Resampling.BICUBIC))
        images.append(torch.from_numpy(pixels.transpose(2, 0, 1).copy()))
    mean, std = weights.normalisation("checkpoint", BACKBONE)
    normalise = Normalise(list(mean), list(std), torch.device("cpu"))
    with torch.inference_mode():
        features = model.eval()(normalise(torch.stack(images)))
    assert features.shape == (8, 384) and torch.isfinite(features).all()
    # pre-trained features tell images apart; those of an untrained network hardly do
    features = torch.nn.functional.normalize(features, dim=1)
    similar = (features @ features.T)[~torch.eye(8, dtype=torch.bool)]
    assert similar.mean() < 0.8
    model.prepare(100)
    assert predict(model, torch.stack(images), normalise).shape == (8,)


def test_one_epoch_through_the_harness(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """16 images to train on and 8 to test, read from a folder like the whole task."""
    task = tmp_path / "data" / "cifar"
    for split, count in (("train800", 16), ("test", 8)):
        lines = (CIFAR / f"{split}.txt").read_text().splitlines()[:count]
        for line in lines:
            path = line.rpartition(" ")[0]
            (task / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(CIFAR / path, task / path)
        (task / f"{split}.txt").write_text("\n".join(lines))
    monkeypatch.setitem(_sizes(), "train800", 16)
    arguments: dict[str, Any] = {
        "suite": "vtab-1k",
        "tasks": ["cifar"],
        "methods": ["linear"],
        "backbone": BACKBONE,
        "checkpoint": str(CHECKPOINT),
        "data_root": str(tmp_path / "data"),
        "seeds": 1,
        "jobs": 1,
        "threads": 1,
        "device": "cpu",
        "results": str(tmp_path / "results"),
        "settings": {
            "protocol.image_size": 98,
            "protocol.epochs": 1,
            "protocol.warmup_epochs": 0,
            "protocol.train_split": "train800",
            "protocol.precision": "fp32",
        },
    }
    result = petlbench.run(**arguments)
    assert (result.done, result.failed) == (1, 0)
    ((record,), problems) = Store(tmp_path / "results").load()
    assert problems == []
    assert record["test"]["total"] == 8
    assert record["parameters"] == {"trainable": 0, "head": 384 * 100 + 100}
    assert np.isfinite(record["train_loss"]).all()
    assert record["spec"]["backbone"]["checkpoint"] == weights.sha256(CHECKPOINT)


def _sizes() -> dict[str, int]:
    """The declared split sizes of cifar, which this test makes smaller."""
    from petlbench.task import load_suite

    (task,) = load_suite("vtab-1k").select(["cifar"])
    assert isinstance(task.sizes, dict)
    return task.sizes
