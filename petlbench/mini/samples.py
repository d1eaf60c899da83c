"""The natural tasks of the embedded suite: small samples shipped inside the package.

`build_samples.py` makes the file and LICENSES.md says where the images come from.
"""

from __future__ import annotations

import functools
import hashlib
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petlbench.errors import RunError

from . import SIZES

__all__ = ["SIZES", "TASKS", "load"]

TASKS: dict[str, int] = {"digits": 10, "fashion_mnist": 10}

FILE = Path(__file__).with_name("samples.npz")
SHA256 = "05e001e74201b763b73bf203f49620ec6b916aa077e444196214b8c9999d27bd"


def load(task: str, split: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (N, h, w, 3) uint8 and labels (N,) int64; h = w = 8 for digits, 28 for fashion."""
    if task not in TASKS:
        raise ValueError(f"unknown sample task {task!r}; known: {', '.join(TASKS)}")
    if split not in SIZES:
        raise ValueError(f"unknown split {split!r}; known: {', '.join(SIZES)}")
    arrays = read(FILE)
    grey = arrays[f"{task}_{split}_images"]
    # The file holds grey images; the models take three channels.
    images = np.repeat(grey[:, :, :, None], 3, axis=3)
    return images, arrays[f"{task}_{split}_labels"].astype(np.int64)


@functools.cache
def read(file: Path) -> dict[str, NDArray[np.uint8]]:
    """All arrays of a sample file that has the known content, read once."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read the sample images {file}: {error.strerror}.") from error
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise RunError(
            f"{file} is damaged or not the file of this version: its SHA-256 is {found}, "
            f"expected {SHA256}. Install petlbench again."
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}
