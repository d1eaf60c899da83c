"""Make `samples.npz`, the natural samples shipped with the package.

    python -m petlbench.mini.build_samples --fashion DIR

`DIR` holds the four `*-ubyte.gz` files of Fashion-MNIST. The digits come with scikit-learn.
The selection is fixed; after a change here, put the printed SHA-256 into samples.py.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import importlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from . import SIZES
from .samples import FILE, TASKS

Bytes = NDArray[np.uint8]
Pair = tuple[Bytes, Bytes]  # images (N, h, w) grey, labels (N,)


def select(
    pool: Pair, splits: list[str], stream: np.random.RandomState, seen: set[bytes]
) -> dict[str, Pair]:
    """Disjoint random splits of a pool, the classes taking turns.

    `seen` holds the content of every image taken so far: no image is taken twice, not even as a
    copy from another pool.
    """
    images, labels = pool
    classes = int(labels.max()) + 1
    queues = [stream.permutation(np.flatnonzero(labels == c)).tolist() for c in range(classes)]
    chosen = {}
    for split in splits:
        rows: list[int] = []
        while len(rows) < SIZES[split]:
            row = queues[len(rows) % classes].pop()
            content = images[row].tobytes()
            if content not in seen:
                seen.add(content)
                rows.append(row)
        chosen[split] = images[rows], labels[rows]
    return chosen


def digits() -> dict[str, Pair]:
    """Splits of the 8x8 digits of scikit-learn, their levels 0 to 16 stretched to 0 to 255."""
    # By name and on demand: only this function needs scikit-learn, and it has no type hints.
    data = importlib.import_module("sklearn.datasets").load_digits()
    levels = data.images.astype(np.int64)
    images = ((levels * 255 + 8) // 16).astype(np.uint8)
    pool = images, data.target.astype(np.uint8)
    return select(pool, list(SIZES), np.random.RandomState(0), set())


def fashion_mnist(folder: Path) -> dict[str, Pair]:
    """Splits of Fashion-MNIST (28x28); the test images are from its own test split."""
    stream = np.random.RandomState(0)
    seen: set[bytes] = set()
    return {
        **select(_idx_pair(folder, "train"), ["train", "val"], stream, seen),
        **select(_idx_pair(folder, "t10k"), ["test"], stream, seen),
    }


def _idx_pair(folder: Path, prefix: str) -> Pair:
    return (
        _idx(folder / f"{prefix}-images-idx3-ubyte.gz", 3),
        _idx(folder / f"{prefix}-labels-idx1-ubyte.gz", 1),
    )


def _idx(file: Path, dimensions: int) -> Bytes:
    """Array of bytes from a gzipped IDX file: 00 00 08, the rank, big-endian sizes, the data."""
    content = gzip.decompress(file.read_bytes())
    if content[:4] != bytes([0, 0, 8, dimensions]):
        raise SystemExit(f"{file} is not an IDX file of bytes with {dimensions} dimensions")
    start = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:start], dtype=">u4").tolist()
    return np.frombuffer(content[start:], dtype=np.uint8).reshape(shape)


def main() -> None:
    """Write the sample file and print its SHA-256."""
    parser = argparse.ArgumentParser(description="Make the shipped sample images.")
    parser.add_argument("--fashion", type=Path, required=True, metavar="DIR")
    parser.add_argument("--output", type=Path, default=FILE)
    options = parser.parse_args()

    tasks = {"digits": digits(), "fashion_mnist": fashion_mnist(options.fashion)}
    arrays: dict[str, Bytes] = {}
    for task in TASKS:
        for split in SIZES:
            images, labels = tasks[task][split]
            arrays[f"{task}_{split}_images"] = images
            arrays[f"{task}_{split}_labels"] = labels
    with options.output.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    content = options.output.read_bytes()
    print(f"{options.output}: {len(content)} bytes, SHA-256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
