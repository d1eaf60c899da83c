"""The data of the embedded suite: sizes, balance, disjointness, and labels that can be measured."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from petlbench.errors import RunError
from petlbench.mini import SIZES, build_samples, samples, scenes

Bools = NDArray[np.bool_]

# SHA-256 of the first 50 training images of each scene task, one after the other. A change here
# changes every published score of the suite.
PINNED = {
    "scene_count": "256d03960c64714287199238637021f3faeb7bd9ba9b5841eed292662b172b04",
    "scene_location": "4ae993b57e0439884bc659a1fee100c5b871423eb39ebb2e82bafede32aca0dc",
    "scene_orientation": "40dc34f941453c6b74163a62835d99832122a2583269f64d3166504bf009a3a8",
}


def load(task: str, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, h, w, 3) and labels (N,) of any task."""
    if task in samples.TASKS:
        return samples.load(task, split)
    indices = range(SIZES[split])
    images = np.stack([scenes.render(task, split, i) for i in indices])
    return images, np.array([scenes.label(task, split, i) for i in indices], dtype=np.int64)


@pytest.mark.parametrize("task", [*samples.TASKS, *scenes.TASKS])
def test_splits(task: str) -> None:
    """Sizes, types, label range, balance within one image, and no image twice."""
    classes = {**samples.TASKS, **scenes.TASKS}[task]
    side = {"digits": 8, "fashion_mnist": 28}.get(task, 48)
    contents = []
    for split, size in SIZES.items():
        images, labels = load(task, split)
        assert images.shape == (size, side, side, 3)
        assert images.dtype == np.uint8
        assert labels.shape == (size,)
        assert labels.dtype == np.int64
        counts = np.bincount(labels, minlength=classes)
        assert len(counts) == classes
        assert counts.max() - counts.min() <= 1
        contents += [image.tobytes() for image in images]
    assert len(set(contents)) == sum(SIZES.values())


@pytest.mark.parametrize("task", scenes.TASKS)
def test_rendering_is_pinned(task: str) -> None:
    digest = hashlib.sha256()
    for index in range(50):
        digest.update(scenes.render(task, "train", index).tobytes())
    assert digest.hexdigest() == PINNED[task]


def test_an_image_does_not_depend_on_those_before() -> None:
    first = scenes.render("scene_count", "test", 17)
    scenes.render("scene_location", "test", 3)
    np.testing.assert_array_equal(scenes.render("scene_count", "test", 17), first)


def components(mask: Bools) -> int:
    """Number of 8-connected regions of a mask."""
    left = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    number = 0
    while left:
        number += 1
        stack = [left.pop()]
        while stack:
            y, x = stack.pop()
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            stack += near
    return number


def cell(mask: Bools) -> int:
    """Cell of a 4x4 grid in which the centroid of a mask lies, along rows from the top left."""
    y, x = np.argwhere(mask).mean(axis=0) + 0.5
    return int(y // 12) * 4 + int(x // 12)


def sector(mask: Bools) -> int:
    """Sector of 45 degrees to which the thin end of a mask points."""
    points = np.argwhere(mask)[:, ::-1] * np.array([1.0, -1.0])
    points -= points.mean(axis=0)
    axis = np.linalg.eigh(points.T @ points)[1][:, 1]  # of the largest spread
    along = points @ axis
    if (along**3).sum() < 0:  # the long tail of a triangle's area is at its tip
        axis = -axis
    return round(math.degrees(math.atan2(axis[1], axis[0])) / 45) % 8


@pytest.mark.parametrize(
    ("task", "measure"),
    [
        ("scene_count", lambda mask: components(mask) - 1),
        ("scene_location", cell),
        ("scene_orientation", sector),
    ],
)
def test_labels_agree_with_a_measure_of_the_mask(
    task: str, measure: Callable[[Bools], int]
) -> None:
    for index in range(SIZES["train"]):
        mask = scenes.object_mask(task, "train", index)
        assert measure(mask) == scenes.label(task, "train", index), index


@pytest.mark.parametrize("task", scenes.TASKS)
def test_objects_are_visible_and_whole(task: str) -> None:
    """Objects differ from the background in colour and do not touch the border."""
    for index in range(SIZES["train"]):
        image = scenes.render(task, "train", index).astype(np.int64)
        mask = scenes.object_mask(task, "train", index)
        assert mask.sum() == mask[1:-1, 1:-1].sum()
        background = image[~mask].mean(axis=0)
        contrast = np.abs(image[mask] - background).sum(axis=1).mean()
        assert contrast > 80, index


@pytest.mark.parametrize("call", [scenes.render, scenes.label, scenes.object_mask])
def test_scenes_refuse_what_does_not_exist(call: Callable[[str, str, int], object]) -> None:
    with pytest.raises(ValueError, match="scene_count"):
        call("scene_colour", "train", 0)
    with pytest.raises(ValueError, match="train, val, test"):
        call("scene_count", "dev", 0)
    with pytest.raises(IndexError, match="0 to 99"):
        call("scene_count", "val", 100)
    with pytest.raises(IndexError):
        call("scene_count", "val", -1)


def test_samples_refuse_what_does_not_exist() -> None:
    with pytest.raises(ValueError, match="digits"):
        samples.load("letters", "train")
    with pytest.raises(ValueError, match="train, val, test"):
        samples.load("digits", "dev")


def test_a_damaged_sample_file_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "samples.npz"
    damaged.write_bytes(samples.FILE.read_bytes()[:-1])
    with pytest.raises(RunError, match="SHA-256"):
        samples.read(damaged)
    with pytest.raises(RunError, match=r"missing\.npz"):
        samples.read(tmp_path / "missing.npz")


def test_the_sample_file_is_small() -> None:
    assert samples.FILE.stat().st_size < 500_000


def test_digits_are_those_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    for split, (grey, labels) in build_samples.digits().items():
        images, shipped = samples.load("digits", split)
        np.testing.assert_array_equal(images, np.repeat(grey[..., None], 3, axis=3))
        np.testing.assert_array_equal(shipped, labels)
