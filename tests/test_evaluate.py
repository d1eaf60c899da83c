"""Predictions are those of a plain loop; a non-finite output is refused, never skipped."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from petlbench import check
from petlbench.data.normalise import Normalise
from petlbench.errors import RunError
from petlbench.evaluate import CPU_BATCH, predict

NORMALISE = Normalise([0.4, 0.5, 0.6], [0.2, 0.3, 0.4], torch.device("cpu"))


def pixels(count: int, size: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("count", [1, CPU_BATCH - 1, CPU_BATCH, CPU_BATCH + 1, 100])
def test_predictions_are_those_of_a_plain_loop(count: int) -> None:
    model, images = check.tiny("[cls] token"), pixels(count)
    predictions = predict(model, images, NORMALISE)
    assert predictions.shape == (count,) and predictions.dtype == torch.int64
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    model.eval()
    with torch.no_grad():
        for index in range(0, count, 10):  # one image at a time
            image = (images[index] / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
            assert predictions[index] == model(image[None])[0].argmax()


def test_dropout_and_gradients_are_off() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 7)).train()
    images = pixels(50, size=2)
    assert torch.equal(predict(model, images, NORMALISE), predict(model, images, NORMALISE))
    assert all(p.grad is None for p in model.parameters())


class Broken(nn.Module):
    """One logit of one image is `value`."""

    def __init__(self, image: int, value: float) -> None:
        super().__init__()
        self.image, self.value, self.seen = image, value, 0

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.zeros(len(images), 3)
        if self.seen <= self.image < self.seen + len(images):
            logits[self.image - self.seen, 1] = self.value
        self.seen += len(images)
        return logits


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("image", [0, CPU_BATCH - 1, CPU_BATCH, 299])
def test_a_non_finite_output_is_refused(image: int, value: float) -> None:
    with pytest.raises(RunError, match=f"output for image {image} of the split is not finite"):
        predict(Broken(image, value), pixels(300, size=2), NORMALISE)


def test_bf16_is_used_where_asked() -> None:
    kinds = []

    class Model(nn.Linear):
        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images.flatten(1))
            kinds.append(logits.dtype)
            return logits

    for bf16 in (False, True):
        predict(Model(12, 3), pixels(3, size=2), NORMALISE, bf16)
    assert kinds == [torch.float32, torch.bfloat16]


class Small(nn.Module):
    """More than `most` images are too many for it."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.sizes = most, list[int]()

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.OutOfMemoryError("simulated")
        return images.flatten(1)[:, :3]


def test_a_batch_that_does_not_fit_is_halved() -> None:
    images = pixels(CPU_BATCH * 2 + 5, size=2)
    model = Small(most=CPU_BATCH // 3)
    predictions = predict(model, images, NORMALISE)
    assert torch.equal(predictions, predict(Small(most=1000), images, NORMALISE))
    quarter = CPU_BATCH // 4
    assert model.sizes == [CPU_BATCH, CPU_BATCH // 2] + [quarter] * 8 + [5]
    with pytest.raises(torch.OutOfMemoryError, match="simulated"):
        predict(Small(most=0), images, NORMALISE)
