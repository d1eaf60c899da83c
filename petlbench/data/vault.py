"""The images of one run: training images at once, test images when every choice has been made.

Until then the vault is sealed, and in this process nothing can open a file of the test split, nor
what the image cache made of it: not the engine, not a method's `attach` or `calibrate`, not the
training loop. Every reading is counted.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from petlbench.data import cache
from petlbench.data.split import Split
from petlbench.errors import RunError
from petlbench.task import Suite, Task

if TYPE_CHECKING:
    from petlbench.spec import RunSpec

_shut: set[str] = set()  # files that must not be opened now
_watching: list[bool] = []


class Peeked(RunError):
    """Something reached for test images before training was over."""


@dataclass(frozen=True)
class Data:
    """A split with its decoded images."""

    split: Split
    images: cache.Images
    workers: int = 0  # processes that may prepare augmented images

    def __len__(self) -> int:
        return len(self.images.labels)


class Vault:
    """The splits of one run."""

    def __init__(
        self,
        spec: RunSpec,
        suite: Suite,
        task: Task,
        root: Path | None,
        on_progress: Callable[[str], None] = lambda message: None,
        workers: int = 0,
    ) -> None:
        self.spec, self.suite, self.task, self.root = spec, suite, task, root
        self.geometry = cache.Geometry.of(spec.rules)
        self.on_progress, self.workers = on_progress, workers
        self.reads: Counter[str] = Counter()
        self.lists: dict[str, Split] = {}
        self.sealed = False

    def training(self) -> Data:
        return self._read(self.spec.rules["train_split"])

    def test(self, split: str | None = None) -> Data:
        """The test split, or another one that is tested on. Raises Peeked while sealed."""
        split = split or self.spec.rules["test_split"]
        if self.sealed:
            raise Peeked(f"{self.task.name}/{split} was asked for before training was over.")
        return self._read(split)

    @contextmanager
    def seal(self, training: Data) -> Iterator[None]:
        """While it lasts no file of a test split can be opened."""
        splits = {self.spec.rules["test_split"], *self.spec.sealed_splits}
        splits |= {target.split for target in self.task.targets}
        shut: set[str] = set()
        for name in sorted(splits):
            split = self._open(name)
            shut |= {os.path.abspath(file) for file in split.files}
            if split.files:
                shut.add(os.path.abspath(cache.file_of(split, self.geometry)))
        # lists that share files with training can only be told apart by name
        shut -= {os.path.abspath(file) for file in training.split.files}
        _watch()
        _shut.update(shut)
        self.sealed = True
        try:
            yield
        finally:
            self.sealed = False
            _shut.difference_update(shut)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """Within a seal: for a look that decides nothing, and that the record tells of."""
        shut = set(_shut)
        _shut.clear()
        self.sealed = False
        try:
            yield
        finally:
            self.sealed = True
            _shut.update(shut)

    def _open(self, name: str) -> Split:
        """The list of a split, read once; images are looked at anew whenever they are asked for."""
        if name in self.lists:
            return self.lists[name]
        split = self.suite.open_split(self.task, name, self.root, self.spec.seed)
        if split.members != self.spec.members.get(name, split.members):
            where = f"{self.task.name}/{name}"
            raise RunError(f"the list of {where} changed since the run was planned.")
        self.lists[name] = split
        return split

    def _read(self, name: str) -> Data:
        split = self._open(name)
        self.reads[name] += 1
        note = f"decoding {name}"
        images = cache.load(split, self.geometry, lambda i, n: self.on_progress(f"{note} {i}/{n}"))
        return Data(split, images, self.workers)


def _watch() -> None:
    """Ask to be told of every file that is opened in this process; that cannot be taken back."""
    if not _watching:
        _watching.append(True)
        sys.addaudithook(_refuse)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _shut and isinstance(arguments[0], (str, bytes, os.PathLike)):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path in _shut:
            raise Peeked(f"{path} belongs to the test split, and training is not over.")


def random_images(count: int, size: int, classes: int) -> Data:
    """Random images (count, 3, size, size) with labels in turn: to measure speeds with."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    split = Split(
        name="random",
        labels=np.arange(count) % classes,
        members="",
        version=lambda: "",
        read=lambda index: Image.fromarray(pixels[index].transpose(1, 2, 0)),
        describe={},
    )
    digests = np.zeros(count, "V16")
    return Data(split, cache.Images(pixels, split.labels, "", {}, digests))
