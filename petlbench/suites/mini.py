"""The embedded suite: five small tasks in VTAB's image, offline, none seen in pre-training.

Natural: samples of scikit-learn's digits and of Fashion-MNIST. Structured: scenes rendered on
the fly, in the spirit of CLEVR and dSprites.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.mini import SIZES, samples, scenes
from petlbench.task import Suite, Task

PARTS = {name: (name,) for name in SIZES} | {"trainval": ("train", "val")}


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    if split not in PARTS:
        raise UsageError(f"suite mini has no split {split!r}; it has {', '.join(PARTS)}.")
    if task.name in scenes.TASKS:
        return _scenes(task.name, split)
    return _samples(task.name, split)


def _samples(task: str, split: str) -> Split:
    parts = [samples.load(task, part) for part in PARTS[split]]
    images = np.concatenate([images for images, _ in parts])
    labels = np.concatenate([labels for _, labels in parts])
    members = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    return Split(
        name=split,
        labels=labels,
        members=members,
        version=lambda: members,
        read=lambda index: Image.fromarray(images[index]),
        describe={"layout": "embedded sample", "size": images.shape[1]},
    )


def _scenes(task: str, split: str) -> Split:
    items = [(part, index) for part in PARTS[split] for index in range(SIZES[part])]
    labels = np.array([scenes.label(task, *item) for item in items], dtype=np.int64)
    members = hashlib.sha256(f"{task} {split} {len(items)} {_renderer()}".encode()).hexdigest()
    return Split(
        name=split,
        labels=labels,
        members=members,
        version=lambda: members,
        read=lambda index: Image.fromarray(scenes.render(task, *items[index])),
        describe={"layout": "rendered scenes", "size": scenes.IMAGE},
    )


@functools.cache
def _renderer() -> str:
    """SHA-256 of the first scenes of every task: changes when the renderer draws differently."""
    digest = hashlib.sha256()
    for task in scenes.TASKS:
        for index in range(4):
            digest.update(scenes.render(task, "train", index).tobytes())
    return digest.hexdigest()


_SIZES = SIZES | {"trainval": SIZES["train"] + SIZES["val"]}

# What stands in "A photo of {}.", in the order of the labels.
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CLASS_NAMES = {
    "digits": tuple(f"handwritten {digit}" for digit in _DIGITS),
    "fashion_mnist": (
        *("T-shirt", "pair of trousers", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    "scene_count": ("single object", *(f"group of {number} objects" for number in _DIGITS[2:7])),
    "scene_location": tuple(
        f"shape at the {row}, {column}"
        for row in ("top", "upper middle", "lower middle", "bottom")
        for column in ("far left", "middle left", "middle right", "far right")
    ),
    "scene_orientation": tuple(
        f"triangle pointing {heading}"
        for heading in (
            *("right", "up and right", "up", "up and left"),
            *("left", "down and left", "down", "down and right"),
        )
    ),
}


def _task(name: str, group: str, classes: int, description: str) -> Task:
    return Task(name, group, classes, _SIZES, description, class_names=CLASS_NAMES[name])


SUITE = Suite(
    name="mini",
    description="5 small tasks inside the package: real images and rendered scenes, no download",
    protocol="mini",
    backbone="vit_mini",
    open_split=_open_split,
    tasks=(
        _task("digits", "Natural", 10, "handwritten digits, 8x8 (scikit-learn)"),
        _task("fashion_mnist", "Natural", 10, "clothing, 28x28 (sample of Fashion-MNIST)"),
        _task("scene_count", "Structured", 6, "how many objects (rendered)"),
        _task("scene_location", "Structured", 16, "in which cell of 4x4 (rendered)"),
        _task("scene_orientation", "Structured", 8, "heading of an arrow (rendered)"),
    ),
)
