"""CIFAR-100, the binary version: one row is a coarse label, a fine label and 3 x 32 x 32 bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, present
from petlbench.prepare.order import WHOLE, select

TASKS = ("cifar",)
TITLE = "CIFAR-100 (binary version)"
LICENCE = "not stated"
HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
DOWNLOAD = (
    Download(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        "cifar-100-binary.tar.gz",
        "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        168_513_733,
    ),
)
NEEDS = ("cifar-100-binary/train.bin and cifar-100-binary/test.bin, of cifar-100-binary.tar.gz",)

COUNTS = {"train": 50_000, "test": 10_000}
SLICES = {
    "train800": ("train", 0, 800),
    "val200": ("train", 45_000, 45_200),
    "test": ("test", 0, WHOLE),
}
ROW = 2 + 3 * 32 * 32


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are the numbers of the rows; the label is the fine one."""
    files = {
        split: present(raw / "cifar-100-binary" / f"{split}.bin", NEEDS, HOMEPAGE)
        for split in COUNTS
    }
    rows = {split: _rows(file) for split, file in files.items()}

    def example(split: str, key: int) -> Example:
        row = rows[split][key]
        label = int(row[1])
        if label > 99:
            raise UsageError(f"{files[split]}, row {key}: the fine label is {label}, not 0..99.")
        return Example(
            str(key), {"cifar": label}, lambda: _image(row), f"{files[split]}, row {key}"
        )

    return select(raw, {s: range(len(r)) for s, r in rows.items()}, COUNTS, SLICES, example)


def _rows(file: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    if file.stat().st_size % ROW:
        raise UsageError(f"{file} is not a whole number of rows of {ROW} bytes: get it again.")
    return np.fromfile(file, dtype=np.uint8).reshape(-1, ROW)


def _image(row: np.ndarray[Any, np.dtype[np.uint8]]) -> Image.Image:
    planes = row[2:].reshape(3, 32, 32)
    return Image.fromarray(np.ascontiguousarray(planes.transpose(1, 2, 0)))
