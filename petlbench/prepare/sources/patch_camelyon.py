"""PatchCamelyon: HDF5 files with `x` (N, 96, 96, 3) bytes and `y` (N, 1, 1, 1)."""

from __future__ import annotations

import gzip
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from petlbench.errors import RunError, UsageError
from petlbench.prepare.examples import Download, Example, open_hdf5, present
from petlbench.prepare.order import select, three_slices

TASKS = ("patch_camelyon",)
TITLE = "PatchCamelyon"
LICENCE = "CC0 (not verified)"
HOMEPAGE = "https://zenodo.org/record/2546921"
_FILES = (
    (
        "train_x",
        "d619e741468a7ab35c7e4a75e6821b7e7e6c9411705d45708f2a0efc8960656c",
        6_421_353_462,
    ),
    ("train_y", "b74126d2c01b20d3661f9b46765d29cf4e4fba6faba29c8e0d09d406331ab75a", 21_378),
    ("valid_x", "f82ee1670d027b4ec388048d9eabc2186b77c009655dae76d624c0ecb053ccb2", 805_965_320),
    ("valid_y", "ce1ae30f08feb468447971cfd0472e7becd0ad96d877c64120c72571439ae48c", 3_038),
    ("test_x", "79174c2201ad521602a5888be8f36ee10875f37403dd3f2086caf2182ef87245", 800_875_929),
    ("test_y", "0a522005fccc8bbd04c5a117bfaf81d8da2676f03a29d7499f71d0a0bd6068ef", 3_040),
)
STEM = "camelyonpatch_level_2_split_"
DOWNLOAD = tuple(
    Download(
        f"https://zenodo.org/record/2546921/files/{STEM}{part}.h5.gz",
        f"{STEM}{part}.h5.gz",
        f"sha256:{checksum}",
        size,
    )
    for part, checksum, size in _FILES
)
NEEDS = (
    f"{STEM}<train|valid|test>_<x|y>.h5, six files; of those that are there as .h5.gz only, "
    "petlbench writes the .h5 beside (9 GB in all)",
)

WORDS = {"train": "train", "validation": "valid", "test": "test"}
COUNTS = {"train": 262_144, "validation": 32_768, "test": 32_768}
SLICES = three_slices()


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are like `train_251464`: the split in the authors' words, and the row."""
    files = {split: _file(raw, f"{STEM}{word}_x.h5") for split, word in WORDS.items()}
    labels = {
        split: _labels(_file(raw, f"{STEM}{word}_y.h5"), files[split])
        for split, word in WORDS.items()
    }
    keys = {s: [f"{WORDS[s]}_{row}" for row in range(len(labels[s]))] for s in WORDS}

    def example(split: str, key: str) -> Example:
        row = int(key.rpartition("_")[2])
        label = int(labels[split][row])
        return Example(
            key,
            {"patch_camelyon": label},
            lambda: _image(files[split], row),
            f"{files[split]}, row {row}",
        )

    return select(raw, keys, COUNTS, SLICES, example)


def _file(raw: Path, name: str) -> Path:
    """The HDF5 file; written from its gzip where only that is there, whole or not at all."""
    file, packed = raw / name, raw / f"{name}.gz"
    if not file.is_file() and packed.is_file():
        partial = file.with_suffix(f".{os.getpid()}.partial")
        try:
            with gzip.open(packed) as source, partial.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            partial.replace(file)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"{packed} cannot be unpacked beside itself: {error}") from error
        finally:
            partial.unlink(missing_ok=True)
    return present(file, NEEDS, HOMEPAGE)


def _labels(file: Path, images: Path) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    with open_hdf5(file) as ys, open_hdf5(images) as xs:
        if "y" not in ys or "x" not in xs:
            raise UsageError(f"{file} must hold 'y', and {images} must hold 'x'.")
        shape = xs["x"].shape
        try:
            labels = np.asarray(ys["y"][:], dtype=np.int64).reshape(-1)
        except OSError as error:
            raise UsageError(f"{file} is corrupt: {error}") from error
    if shape != (len(labels), 96, 96, 3) or not np.isin(labels, (0, 1)).all():
        raise UsageError(
            f"{images} has images of shape {shape} and {file} {len(labels)} labels; there must be "
            "as many, of 96 x 96 x 3 and 0 or 1."
        )
    return labels


def _image(file: Path, row: int) -> Image.Image:
    with open_hdf5(file) as opened:
        try:
            return Image.fromarray(np.asarray(opened["x"][row], dtype=np.uint8))
        except OSError as error:
            raise RunError(f"cannot read image {row} of {file}: {error}") from error
