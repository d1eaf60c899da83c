"""The loop: its learning rate, its order of images, and its refusal to go on after a NaN."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from petlbench import check, method, protocol
from petlbench.data.normalise import Normalise
from petlbench.errors import RunError
from petlbench.problems.classification import CrossEntropy
from petlbench.train import learning_rate
from petlbench.train import train as train_on

CPU = torch.device("cpu")
NORMALISE = Normalise([0.5] * 3, [0.25] * 3, CPU)


def rules(**changes: Any) -> dict[str, Any]:
    values = protocol.load("mini").rules() | {"epochs": 3, "warmup_epochs": 0, "batch_size": 4}
    return values | changes


def data(count: int = 12) -> tuple[Tensor, Tensor]:
    """Every image has its own number as its only pixel value; the label is odd or even."""
    numbers = torch.arange(count, dtype=torch.uint8)
    pixels = numbers.view(-1, 1, 1, 1).expand(-1, 3, 2, 2).contiguous()
    return pixels, numbers.long() % 2


def train(model: nn.Module, pixels: Tensor, *arguments: Any) -> list[float]:
    """Train `model` on normalised images; the loss of each epoch."""
    labels, values, seed, *rest = arguments
    gradient = cross_entropy(model, NORMALISE(pixels), labels, values)
    curve = train_on(model, gradient, len(labels), values, seed, *rest)
    assert gradient.parts == 1
    return curve


def cross_entropy(
    model: nn.Module, inputs: Tensor, labels: Tensor, values: dict[str, Any]
) -> CrossEntropy:
    feed = lambda epoch, order: (inputs[chosen] for chosen in order)  # noqa: E731
    return CrossEntropy(model, model, feed, labels, values, 0)


class Spy(nn.Module):
    """A linear classifier that writes down which images it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 2)
        nn.init.zeros_(self.head.weight)
        self.batches: list[list[int]] = []
        self.modes: set[bool] = set()

    def forward(self, images: Tensor) -> Tensor:
        numbers = ((images[:, 0, 0, 0] * 0.25 + 0.5) * 255).round().int()
        self.batches.append(numbers.tolist())
        self.modes.add(self.training)
        logits: Tensor = self.head(images.flatten(1))
        return logits


@given(
    epochs=st.integers(1, 50),
    warmup=st.integers(0, 49),
    steps=st.integers(1, 30),
    peak=st.floats(1e-5, 1),
    position=st.floats(0, 1, exclude_max=True),
)
def test_the_learning_rate_is_the_formula(
    epochs: int, warmup: int, steps: int, peak: float, position: float
) -> None:
    warmup = min(warmup, epochs - 1)
    values = rules(epochs=epochs, warmup_epochs=warmup, learning_rate=peak)
    low, floor = values["warmup_learning_rate"], values["min_learning_rate"]
    step = int(position * epochs * steps)
    if step < warmup * steps:  # the straight line through (-1, low) and (W - 1, peak)
        expected = torch.lerp(
            torch.tensor(low, dtype=torch.float64),
            torch.tensor(peak, dtype=torch.float64),
            (step + 1) / (warmup * steps),
        ).item()
    else:  # half a cosine wave, by its double-angle form
        part = (step - warmup * steps) / ((epochs - warmup) * steps)
        expected = floor + (peak - floor) * math.cos(math.pi * part / 2) ** 2
    assert learning_rate(step, steps, values) == pytest.approx(expected, rel=1e-9, abs=1e-15)


def test_the_learning_rate_at_landmarks() -> None:
    values = protocol.load("vtab-1k").rules()
    rates = [learning_rate(step, 15, values) for step in range(1500)]
    assert rates[149] == rates[150] == max(rates) == values["learning_rate"]
    assert rates[0] == pytest.approx(1e-6 + (1e-3 - 1e-6) / 150)
    assert rates[:150] == sorted(rates[:150])
    assert rates[150:] == sorted(rates[150:], reverse=True)
    assert rates[-1] == pytest.approx(values["min_learning_rate"], rel=1e-3)


def test_the_rate_reaches_the_optimiser(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[float] = []
    original = torch.optim.AdamW.step

    def step(self: torch.optim.AdamW, *arguments: Any) -> Any:
        used.extend(group["lr"] for group in self.param_groups)
        assert {group["weight_decay"] for group in self.param_groups} == {0.03}
        return original(self, *arguments)

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    values = rules(weight_decay=0.03, warmup_epochs=1)
    train(Spy(), *data(), values, 0)
    assert used == [learning_rate(step, 3, values) for step in range(9)]


def test_normalisation() -> None:
    normalise = Normalise([0.1, 0.2, 0.3], [0.5, 0.6, 0.7], CPU)
    images = torch.randint(0, 256, (4, 3, 5, 5), dtype=torch.uint8)
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    expected = (images / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    assert torch.allclose(normalise(images), expected, atol=1e-6)
    assert normalise(images).dtype == torch.float32


def batches(seed: int, **changes: Any) -> list[list[int]]:
    spy = Spy()
    train(spy, *data(), rules(**changes), seed)
    assert spy.modes == {True}
    return spy.batches


def test_the_order_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = batches(seed=5)
    torch.manual_seed(2)
    torch.rand(10)  # a method that draws more random numbers sees the same batches
    assert batches(seed=5) == first
    assert batches(seed=6) != first
    for epoch in range(3):  # every epoch is a new permutation of all images
        seen = [n for batch in first[3 * epoch : 3 * epoch + 3] for n in batch]
        assert sorted(seen) == list(range(12)) and seen != list(range(12))
    assert first[:3] != first[3:6]


@pytest.mark.parametrize(
    ("batch_size", "drop_last", "expected"),
    [
        (5, True, [5, 5]),
        (5, False, [5, 5, 2]),
        (12, True, [12]),
        (100, True, [12]),  # never no batch at all
        (100, False, [12]),
    ],
)
def test_drop_last(batch_size: int, drop_last: bool, expected: list[int]) -> None:
    seen = batches(seed=0, batch_size=batch_size, drop_last=drop_last, epochs=1)
    assert [len(batch) for batch in seen] == expected


def test_training_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 32), nn.GELU(), nn.Linear(32, 2))
    pixels, labels = data(200)
    seen: list[tuple[int, float]] = []
    values = rules(epochs=30, learning_rate=0.01, batch_size=20)
    labels = (pixels[:, 0, 0, 0] > 100).long()
    curve = train(model, pixels, labels, values, 0, lambda e, x: seen.append((e, x)))
    assert seen == list(enumerate(curve, start=1))
    assert curve[0] > 0.2 > 0.1 > curve[-1]


def test_the_first_loss_is_the_cross_entropy() -> None:
    assert train(Spy(), *data(), rules(epochs=1), 0)[0] == pytest.approx(math.log(2), abs=0.05)


@pytest.mark.parametrize("name", ["convpass", "vpt", "full"])
def test_a_plain_loop_gives_the_same_losses(name: str) -> None:
    """fp32, the unfused AdamW, whole batches, every image through the whole model."""
    values = rules(epochs=4, warmup_epochs=1, weight_decay=0.01, learning_rate=0.01)
    pixels = torch.randint(0, 256, (12, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    pixels, labels = pixels.to(torch.uint8), torch.arange(12) % check.CLASSES

    def model() -> nn.Module:
        return check.adapted(method.load(name)(), "registers and LayerScale")

    fast, slow = model(), model()
    torch.manual_seed(3)
    curve = train(fast, pixels, labels, values, 5)

    torch.manual_seed(3)
    parameters = [p for p in slow.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01, foreach=False, fused=False)
    order = torch.Generator().manual_seed(5)
    slow.train()
    expected = []
    for epoch in range(4):
        permutation, total = torch.randperm(12, generator=order), 0.0
        for step in range(3):
            chosen = permutation[4 * step : 4 * step + 4]
            optimizer.param_groups[0]["lr"] = learning_rate(3 * epoch + step, 3, values)
            images = (pixels[chosen] / 255 - 0.5) / 0.25
            loss = nn.functional.cross_entropy(slow(images), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
        expected.append(total / 3)
    assert curve == pytest.approx(expected, rel=1e-4)
    # not the weights: the bias of the keys has no gradient but rounding, which Adam magnifies
    images = (pixels / 255 - 0.5) / 0.25
    with torch.no_grad():
        torch.testing.assert_close(fast.eval()(images), slow.eval()(images), rtol=1e-3, atol=1e-3)


def test_frozen_parameters_stay() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.Linear(4, 2))
    model[1].requires_grad_(False)
    before = [p.clone() for p in model.parameters()]
    train(model, *data(), rules(), 0)
    same = [torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)]
    assert same == [True, True, False, False]


class Breaks(Spy):
    """Its output is `value` from the given call on."""

    def __init__(self, call: int, value: float) -> None:
        super().__init__()
        self.call, self.value = call, value

    def forward(self, images: Tensor) -> Tensor:
        logits = super().forward(images)
        return logits * self.value if len(self.batches) >= self.call else logits


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize(("call", "epoch", "step"), [(1, 1, 1), (3, 1, 3), (4, 2, 1), (8, 3, 2)])
def test_a_non_finite_loss_names_step_and_epoch(
    call: int, epoch: int, step: int, value: float
) -> None:
    with pytest.raises(RunError) as raised:
        train(Breaks(call, value), *data(), rules(), 0)
    assert f"at step {step} of epoch {epoch} (learning rate " in str(raised.value)
    assert "lower the learning rate or the method's scale" in str(raised.value)


def test_a_huge_learning_rate_is_noticed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.Linear(8, 8), nn.Linear(8, 2))
    with pytest.raises(RunError, match=r"of epoch 1 \(learning rate 9\.7e\+29\)"):
        train(model, *data(), rules(learning_rate=1e30), 0)


# -- memory --------------------------------------------------------------------------------------


class Small(nn.Module):
    """A classifier without random numbers for which more than `most` images are too many."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.layer, self.most = nn.Linear(6, 4).double(), most
        self.sizes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if len(x) > self.most:
            torch.empty(2**60)  # really out of memory
        logits: Tensor = self.layer(x)
        return logits


def gradient(model: nn.Module, count: int, parts: int) -> tuple[Tensor, Tensor, int]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    labels = torch.arange(count) % 4
    model.zero_grad()
    found = cross_entropy(model, x, labels, rules())
    found.parts = parts
    loss = next(found(0, [torch.arange(count)]))
    trainable = list(model.parameters())
    whole = torch.cat([p.grad.flatten() for p in trainable if p.grad is not None])
    return loss, whole, found.parts


@given(count=st.integers(1, 20), parts=st.integers(1, 20))
def test_parts_of_a_batch_give_its_gradient(count: int, parts: int) -> None:
    torch.manual_seed(1)
    model = Small(most=count)
    loss, whole, _ = gradient(model, count, 1)
    again, summed, same = gradient(model, count, parts)
    assert same == parts
    torch.testing.assert_close(again, loss, rtol=1e-6, atol=1e-7)  # cross-entropy is in fp32
    torch.testing.assert_close(summed, whole, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("count", "most", "expected"), [(12, 12, 1), (12, 6, 2), (12, 5, 4)])
def test_a_batch_that_does_not_fit_is_taken_in_parts(count: int, most: int, expected: int) -> None:
    torch.manual_seed(1)
    model = Small(most)
    loss, found, parts = gradient(model, count, 1)
    assert parts == expected and max(model.sizes[-expected:]) <= most
    model.most = count
    exact, whole, _ = gradient(model, count, 1)
    torch.testing.assert_close(loss, exact, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-7)


def test_the_number_of_parts_is_kept() -> None:
    """Found once: later batches do not run out of memory first."""
    torch.manual_seed(1)
    model = Small(most=4)
    inputs = torch.randn(24, 6, dtype=torch.float64)
    labels = torch.arange(24) % 4
    values = rules(batch_size=8, epochs=2)
    found = cross_entropy(model, inputs, labels, values)
    train_on(model, found, 24, values, 0)
    assert found.parts == 2
    assert model.sizes == [8] + [4] * 12


def test_a_single_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="memory"):
        gradient(Small(most=0), 8, 1)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("of a GPU"), RuntimeError("another")])
def test_only_lack_of_memory_is_answered_by_parts(error: RuntimeError) -> None:
    calls = []

    class Fails(Small):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(len(x))
            raise error

    with pytest.raises(RuntimeError, match=str(error)):
        gradient(Fails(most=0), 4, 1)
    assert calls == ([4, 2, 1] if isinstance(error, torch.OutOfMemoryError) else [4])
