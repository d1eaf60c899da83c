"""Augmented images are those of their recipes, and always the same; batches mix as they say."""

from __future__ import annotations

import random
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform
from torchvision import transforms as v1

from petlbench import protocol
from petlbench.data import augment, lists
from petlbench.data.augment import Augmented, mix
from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError
from petlbench.protocol import Protocol

RECIPES = sorted(augment.RECIPES)
SIZE = 16


def rules(augmentation: str, **changes: Any) -> dict[str, Any]:
    """Rules under which a value of 1 stays 1."""
    given = Protocol("x", augmentation=augmentation, image_size=SIZE, resize_to=20)  # type: ignore[arg-type]
    return given.rules() | {"mean": [0.0] * 3, "std": [1.0] * 3} | changes


def split_of(images: Sequence[Image.Image]) -> Split:
    return Split(
        name="train",
        labels=np.zeros(len(images), np.int64),
        members="",
        version=lambda: "",
        read=images.__getitem__,
        describe={},
    )


def noise(count: int = 12, height: int = 30, width: int = 40) -> list[Image.Image]:
    draw = np.random.default_rng(0)
    return [
        Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8)) for _ in [0] * count
    ]


def ramp() -> Image.Image:
    """Red says how far to the right a pixel is, green how far down, in 1/255 of the side."""
    down, right = np.mgrid[:256, :256].astype(np.uint8)
    return Image.fromarray(np.stack([right, down, 0 * down], axis=2))


def epochs(image: Image.Image, given: dict[str, Any], count: int) -> torch.Tensor:
    """(count, 3, S, S): what becomes of one image in `count` epochs."""
    augmented = Augmented(split_of([image]), given, seed=0)
    return torch.cat([augmented.batch(epoch, [0]) for epoch in range(count)])


def likely(happened: int, probability: float, count: int) -> bool:
    """Within 4 standard deviations; draws are seeded, so that this never changes its mind."""
    spread = (probability * (1 - probability) * count) ** 0.5
    return abs(happened - probability * count) <= 4 * spread


# Always the same images


def test_every_augmentation_of_a_protocol_has_a_recipe() -> None:
    allowed = typing.get_args(typing.get_type_hints(Protocol)["augmentation"])
    assert {"none", *augment.RECIPES} == set(allowed)
    with pytest.raises(UsageError, match="unknown augmentation 'none'"):
        Augmented(split_of(noise(1)), rules("none"), seed=0)


@pytest.mark.parametrize("name", RECIPES)
def test_an_image_depends_on_seed_epoch_and_index_alone(name: str) -> None:
    split = split_of(noise())
    whole = Augmented(split, rules(name), seed=3).batch(5, range(12))
    assert whole.shape == (12, 3, SIZE, SIZE) and whole.dtype == torch.float32
    torch.manual_seed(7), random.seed(7), np.random.seed(7)
    again = Augmented(split, rules(name), seed=3, kept_bytes=0)
    assert torch.equal(again.batch(5, torch.arange(12)), whole)
    order = [7, 0, 11, 7, 3]
    assert torch.equal(again.batch(5, order), whole[order])
    assert torch.equal(torch.cat(list(again.epoch(5, order, 2))), whole[order])
    for other in (
        Augmented(split, rules(name), seed=4).batch(5, range(12)),
        again.batch(6, range(12)),
    ):
        assert not torch.equal(other, whole)
    same = Augmented(split_of([noise(1)[0]] * 8), rules(name), seed=0).batch(0, range(8))
    assert len({image.numpy().tobytes() for image in same}) > 4  # the index matters


@pytest.mark.skipif(not augment.CAN_FORK, reason="workers are forked")
@pytest.mark.parametrize("kept_bytes", [0, 6 * 30 * 40 * 3, 2**30])
@pytest.mark.parametrize("name", RECIPES)
def test_workers_change_nothing(name: str, kept_bytes: int) -> None:
    split, order = split_of(noise()), torch.randperm(12, generator=torch.Generator().manual_seed(1))
    alone = Augmented(split, rules(name), seed=0)
    expected = [alone.batch(2, chosen) for chosen in order.split(5)]
    helped = Augmented(split, rules(name), seed=0, workers=2, kept_bytes=kept_bytes)
    found = list(helped.epoch(2, order, 5))
    assert [len(batch) for batch in found] == [5, 5, 2]
    assert all(map(torch.equal, found, expected))


def states() -> tuple[Any, ...]:
    kind, words, *rest = np.random.get_state()
    return random.getstate(), kind, words.tolist(), rest, torch.get_rng_state().tolist()  # type: ignore[union-attr]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", RECIPES)
def test_nobody_else_notices(name: str, workers: int) -> None:
    before = states()
    augmented = Augmented(split_of(noise()), rules(name), seed=0, workers=workers)
    augmented.batch(0, [1, 2])
    list(augmented.epoch(0, range(4), 2))
    mix(torch.rand(4, 3, 2, 2, generator=torch.Generator()), torch.arange(4), 4, MIXED, 0)
    assert states() == before


def test_a_failure_puts_the_generators_back_too() -> None:
    images = noise(2)
    augmented = Augmented(split_of(images), rules("harma"), seed=0, kept_bytes=0)
    before = states()
    del images[1]
    with pytest.raises(IndexError):
        augmented.batch(0, [0, 1])
    assert states() == before


@pytest.mark.parametrize(("room", "kept"), [(0, 0), (3599, 0), (3600, 1), (8000, 2), (2**30, 5)])
def test_originals_are_decoded_once_as_far_as_there_is_room(room: int, kept: int) -> None:
    images, decoded = noise(5), []

    def read(index: int) -> Image.Image:
        decoded.append(index)
        return images[index]

    split = Split("train", np.zeros(5, np.int64), "", lambda: "", read, {})
    steps: list[tuple[int, int]] = []
    augmented = Augmented(
        split,
        rules("resized-crop-flip"),
        0,
        on_progress=lambda done, total: steps.append((done, total)),
        kept_bytes=room,
    )
    assert steps == [(done, 5) for done in range(1, kept + 1)]
    decoded.clear()
    augmented.batch(0, range(5))
    assert decoded == list(range(kept, 5))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(
    tmp_path: Path, make_task: Any, workers: int
) -> None:
    make_task(tmp_path, "t", {"train": 3})
    split = lists.open_split(tmp_path, "t", "train", classes=10)
    good = Augmented(split, rules("noah"), seed=0, workers=workers, kept_bytes=0)
    (tmp_path / "t" / "images" / "02 of 20.png").write_bytes(b"")
    with pytest.raises(RunError, match="02 of 20"):
        list(good.epoch(0, range(3), 1))
    with pytest.raises(RunError, match="02 of 20"):
        Augmented(split, rules("noah"), seed=0)


# Recipes


@pytest.fixture
def seeded() -> Iterator[None]:
    with augment._generators_put_back():
        augment._seed(0, 0, 0)
        yield


@pytest.mark.usefixtures("seeded")
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        (
            "resized-crop-flip",
            [
                v1.RandomResizedCrop(SIZE, interpolation=v1.InterpolationMode.BICUBIC),
                v1.RandomHorizontalFlip(),
            ],
        ),
        (
            "crop-flip",
            [
                v1.Resize((20, 20), v1.InterpolationMode.BICUBIC),
                v1.RandomCrop(SIZE),
                v1.RandomHorizontalFlip(),
            ],
        ),
    ],
)
def test_it_is_what_torchvision_s_classic_transforms_do(name: str, reference: list[Any]) -> None:
    """Same draws, same pixels; then scaled and normalised."""
    image, mean, std = noise(1, 60, 50)[0], [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    expected = v1.Compose([*reference, v1.ToTensor(), v1.Normalize(mean, std)])(image)
    found = Augmented(split_of([image]), rules(name, mean=mean, std=std), seed=0).batch(0, [0])
    torch.testing.assert_close(found[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["crop-flip", "resized-crop-flip", "harma"])
def test_half_of_the_images_are_flipped(name: str) -> None:
    """RandAugment may shear and rotate a ramp, and does not turn it round."""
    red = epochs(ramp(), rules(name), 400)[:, 0]
    flipped = red[:, :, : SIZE // 2].mean((1, 2)) > red[:, :, SIZE // 2 :].mean((1, 2))
    assert likely(int(flipped.sum()), 0.5, 400)


@pytest.mark.parametrize(
    ("name", "smallest"), [("resized-crop-flip", 0.08), ("noah", 0.08), ("harma", 0.5)]
)
def test_crops_are_of_the_stated_areas(
    name: str, smallest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Uniformly from the smallest to the whole, with sides of at most 3:4."""
    monkeypatch.setattr("timm.data.auto_augment.RandAugment.__call__", lambda self, image: image)
    monkeypatch.setattr("timm.data.random_erasing.RandomErasing.__call__", lambda self, x: x)
    images = epochs(ramp(), rules(name), 400)
    sides = [
        images[:, channel].amax((1, 2)) - images[:, channel].amin((1, 2)) for channel in (0, 1)
    ]
    width, height = (side * SIZE / (SIZE - 1) for side in sides)  # centres of the outer pixels
    area, ratio = width * height, width / height
    assert smallest - 0.02 <= area.min() < smallest + 0.03 and 0.95 < area.max() <= 1.02
    assert 0.72 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.39
    # drawn uniformly, and drawn again where a shape does not fit: large ones are rarer
    areas = np.linspace(smallest, 1, 10_000)
    fits = np.minimum(1, -np.log(areas) / np.log(4 / 3))
    middle = (1 + smallest) / 2
    assert likely(int((area < middle).sum()), fits[areas < middle].sum() / fits.sum(), 400)


def test_crop_flip_moves_the_crop_within_the_resized_image() -> None:
    """From 20 to 16 px: five places in each direction."""
    images = epochs(ramp(), rules("crop-flip"), 400)
    tops = images[:, 1].amin((1, 2)).mul(20).round(decimals=1)
    places, counts = tops.unique(return_counts=True)
    assert len(places) == 5 and all(likely(int(count), 0.2, 400) for count in counts)


def test_crop_flip_may_keep_the_aspect() -> None:
    given = rules("crop-flip", resize_to=SIZE, keep_aspect=True)
    (image,) = epochs(noise(1, 30, 60)[0], given, 1)
    assert image.shape == (3, SIZE, SIZE)
    for resize_to in (0, SIZE):
        with pytest.raises(UsageError, match=r"'crop-flip' crops 16 px .* must be larger"):
            Augmented(split_of(noise(1)), rules("crop-flip", resize_to=resize_to), seed=0)


def test_noah_is_timm_s_transform() -> None:
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    reference = create_transform(
        SIZE,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        interpolation="bicubic",
        re_prob=0.25,
        re_mode="pixel",
        mean=mean,
        std=std,
    )
    (image,) = noise(1)
    augmented = Augmented(split_of([image]), rules("noah", mean=list(mean), std=list(std)), seed=1)
    with augment._generators_put_back():
        for epoch in range(20):
            augment._seed(1, epoch, 0)
            expected = reference(image)
            assert torch.equal(augmented.batch(epoch, [0])[0], expected)


def test_noah_erases_a_quarter_of_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """With normal noise, which leaves the range of colours."""
    monkeypatch.setattr("timm.data.auto_augment.RandAugment.__call__", lambda self, image: image)
    images = epochs(Image.new("RGB", (40, 40), (128, 128, 128)), rules("noah"), 400)
    assert likely(int((images.amin((1, 2, 3)) < 0).sum()), 0.25, 400)


def test_harma_s_operations() -> None:
    """On grey only brightness shows in the middle: one of ten, half of the time, twice; x 1.36."""
    images = epochs(Image.new("RGB", (40, 40), (128, 128, 128)), rules("harma"), 1000)
    values = images[:, 0, SIZE // 2, SIZE // 2].mul(255).round()
    count = {value: int((values == value).sum()) for value in (128, 174, 236)}
    assert sum(count.values()) == 1000
    assert likely(count[128], 0.95**2, 1000) and likely(count[174], 2 * 0.05 * 0.95, 1000)


def test_harma_shears_shifts_and_rotates_by_little() -> None:
    """7/10 of 0.3, of 10 px and of 30 degrees, with grey coming in."""
    transform = augment.harma(rules("harma", image_size=100))
    (two,) = (step for step in transform.transforms if hasattr(step, "num_layers"))  # type: ignore[attr-defined]
    assert two.num_layers == 2 and len(two.ops) == 10
    red = Image.new("RGB", (100, 100), (255, 0, 0))
    grey = {}
    for operation in two.ops[:-1]:
        operation.prob = 1
        pixels = np.asarray(operation(red))
        grey[operation.name] = (pixels == 128).all(2).mean()
    assert grey["TranslateX"] == grey["TranslateY"] == 0.07
    assert abs(grey["ShearX"] - 0.105) < 0.01 and abs(grey["ShearY"] - 0.105) < 0.01
    turned = np.asarray(red.rotate(21, fillcolor=(128, 128, 128)))
    assert abs(grey["Rotate"] - (turned == 128).all(2).mean()) < 0.02


# Batches

MIXED = {"mixup": 0.8, "cutmix": 1.0, "label_smoothing": 0.1}


def soft(labels: torch.Tensor, classes: int, smoothing: float) -> torch.Tensor:
    hot = torch.eye(classes, dtype=torch.float64)[labels]
    return hot * (1 - smoothing) + smoothing / classes


@given(
    st.integers(1, 9),
    st.tuples(st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from([0.0, 0.2, 0.8, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 0.1]),
    st.integers(0, 2**32),
)
@hypothesis_settings(deadline=None)
def test_targets_are_the_shares_of_the_pixels(
    count: int, shape: tuple[int, int], mixup: float, cutmix: float, smoothing: float, seed: int
) -> None:
    """Images that are 1-hot like their labels: the mean of a channel is the share of its image."""
    images = torch.eye(count, dtype=torch.float64)[:, :, None, None].expand(-1, -1, *shape)
    labels = torch.arange(count)
    given = {"mixup": mixup, "cutmix": cutmix, "label_smoothing": smoothing}
    mixed, targets = mix(images, labels, count, given, seed)
    torch.testing.assert_close(targets.sum(1), torch.ones(count), atol=1e-6, rtol=0)
    shares = mixed.mean((2, 3))
    expected = shares * (1 - smoothing) + smoothing / count
    torch.testing.assert_close(targets.double(), expected, atol=1e-6, rtol=0)
    others = labels.flip(0)
    for image in range(count):
        assert set(shares[image].nonzero().flatten().tolist()) <= {image, int(others[image])}
    if count % 2:
        assert torch.equal(mixed[count // 2], images[count // 2])
    if not mixup and not cutmix:
        assert torch.equal(mixed, images)


def kinds(given: dict[str, Any], count: int = 1000) -> tuple[int, list[float]]:
    """How many batches were cut, and the share of the image itself in each."""
    images = torch.stack([torch.zeros(3, 32, 32), torch.ones(3, 32, 32)])
    cut, shares = 0, []
    for step in range(count):
        mixed, targets = mix(images, torch.tensor([0, 1]), 2, given, (0, 0, step))
        # a cut of nothing or of everything shows as a mix that leaves no colour between
        cut += bool(((mixed == 0) | (mixed == 1)).all())
        shares.append(float(targets[0, 0]))
    return cut, shares


def test_a_batch_is_mixed_or_cut_equally_often() -> None:
    assert likely(kinds(MIXED)[0], 0.5, 1000)
    assert kinds({"mixup": 0.8})[0] == 0
    assert kinds({"cutmix": 1.0})[0] == 1000


@pytest.mark.parametrize("alpha", [0.2, 0.8, 4.0])
def test_shares_of_mixup_are_beta(alpha: float) -> None:
    """Mean 1/2 and variance 1 / (4 (2 alpha + 1))."""
    shares = np.array(kinds({"mixup": alpha}, 2000)[1])
    assert abs(shares.mean() - 0.5) < 0.04
    assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.1)


def test_cutmix_follows_its_box() -> None:
    """One box for the batch, filled from the image at the other end, as in timm's batch mode."""
    images = torch.rand(6, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    for seed in range(30):
        mixed, targets = mix(images, torch.arange(6), 6, {"cutmix": 1.0}, seed)
        foreign = (mixed != images).all(1)
        assert (foreign == foreign[0]).all()
        rows, columns = foreign[0].any(1), foreign[0].any(0)
        assert torch.equal(foreign[0], rows[:, None] & columns)
        assert torch.equal(mixed, torch.where(foreign[:, None], images.flip(0), images))
        share = float(1 - foreign[0].double().mean())
        assert float(targets[0, 0]) == pytest.approx(share, abs=1e-6)


def test_a_mix_is_the_same_for_the_same_seed_and_leaves_its_input() -> None:
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    labels, before = torch.arange(5), images.clone()
    for seed in range(10):
        first, second = (mix(images, labels, 5, MIXED, (1, 2, seed)) for _ in range(2))
        assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
    assert torch.equal(images, before)
    assert not torch.equal(first[0], mix(images, labels, 5, MIXED, (1, 3, 9))[0])


def test_smoothing_alone() -> None:
    images, labels = torch.rand(3, 3, 4, 4), torch.tensor([2, 0, 3])
    found, targets = mix(images, labels, 4, {"label_smoothing": 0.1}, 0)
    assert torch.equal(found, images)
    torch.testing.assert_close(targets.double(), soft(labels, 4, 0.1), atol=1e-7, rtol=0)
    _, hard = mix(images, labels, 4, protocol.neutral(), 0)
    assert hard.argmax(1).tolist() == [2, 0, 3] and hard.sum() == 3
