"""SVHN, cropped digits: X (32, 32, 3, N) and y (N, 1) in a MATLAB file; the digit 0 is y = 10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, load_mat, present
from petlbench.prepare.order import WHOLE, select

TASKS = ("svhn",)
TITLE = "SVHN (cropped digits)"
LICENCE = "for non-commercial use only (not verified)"
HOMEPAGE = "http://ufldl.stanford.edu/housenumbers"
DOWNLOAD = (
    Download(
        "http://ufldl.stanford.edu/housenumbers/train_32x32.mat",
        "train_32x32.mat",
        "sha256:435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
        182_040_794,
    ),
    Download(
        "http://ufldl.stanford.edu/housenumbers/test_32x32.mat",
        "test_32x32.mat",
        "sha256:cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
        64_275_384,
    ),
)
NEEDS = ("train_32x32.mat and test_32x32.mat (format 2, without extra)",)

COUNTS = {"train": 73_257, "test": 26_032}
SLICES = {
    "train800": ("train", 0, 800),
    "val200": ("train", 65_931, 66_131),
    "test": ("test", 0, WHOLE),
}


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are the places along the last axis of X."""
    files = {split: present(raw / f"{split}_32x32.mat", NEEDS, HOMEPAGE) for split in COUNTS}
    images, digits = {}, {}
    for split, file in files.items():
        x, y = load_mat(file, "X", "y")
        if x.shape != (32, 32, 3, y.size) or x.dtype != np.uint8 or not y.size:
            raise UsageError(f"{file} has X {x.shape} and y {y.shape}, not (32, 32, 3, N) and N.")
        if y.min() < 1 or y.max() > 10:
            raise UsageError(f"{file} has digits {y.min()}..{y.max()}, not 1..10.")
        images[split], digits[split] = np.moveaxis(x, -1, 0), y.reshape(-1)

    def example(split: str, key: int) -> Example:
        pixels = images[split][key]
        return Example(
            key=str(key),
            labels={"svhn": int(digits[split][key]) % 10},
            read=lambda: Image.fromarray(np.ascontiguousarray(pixels)),
            origin=f"{files[split]}, image {key}",
        )

    return select(raw, {s: range(len(d)) for s, d in digits.items()}, COUNTS, SLICES, example)
