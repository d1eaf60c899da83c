"""dSprites: 737,280 binary images, every combination of six factors once.

HDF5 (what TFDS reads): `imgs` (N, 64, 64) and `latents/classes` (N, 6); the npz file has the same
rows as `imgs` and `latents_classes`. The factors are colour, shape, scale, orientation, x and y.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, open_hdf5, present
from petlbench.prepare.order import select

TASKS = ("dsprites_loc", "dsprites_ori")
TITLE = "dSprites"
LICENCE = "Apache-2.0"
HOMEPAGE = "https://github.com/google-deepmind/dsprites-dataset"
NAME = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64"
DOWNLOAD = (
    Download(
        f"https://github.com/deepmind/dsprites-dataset/blob/master/{NAME}.hdf5?raw=true",
        f"{NAME}.hdf5",
        "sha256:729fa22e884c9c500e1f17415d580746b4c5894fbbb780a1319bbcfa39a745bb",
        28_024_106,
    ),
)
NEEDS = (f"{NAME}.hdf5, or {NAME}.npz",)

COUNTS = {"train": 737_280}
SLICES = {
    "train800": ("train", 0, 800),
    "val200": ("train", 589_824, 590_024),
    "test": ("train", 663_552, 737_280),
}
ORIENTATIONS, PLACES, GROUPS = 40, 32, 16
BLOCK = 8192

Array = np.ndarray[Any, Any]


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are the numbers of the rows; the file is read through once, members are kept packed."""
    npz = raw / f"{NAME}.npz"
    file = npz if npz.is_file() else present(raw / f"{NAME}.hdf5", NEEDS, HOMEPAGE)
    classes, blocks = _open_npz(file) if file == npz else _open_hdf5(file)
    if classes.ndim != 2 or classes.shape[1] != 6:
        raise UsageError(f"{file} has classes of shape {classes.shape}, not (N, 6).")
    for column, end in ((3, ORIENTATIONS), (4, PLACES)):
        if not np.isin(classes[:, column], range(end)).all():
            raise UsageError(f"{file}: factor {column} is not 0..{end - 1} everywhere.")
    packed: dict[int, Array] = {}

    def example(split: str, key: int) -> Example:
        orientation, x = int(classes[key, 3]), int(classes[key, 4])
        return Example(
            key=str(key),
            labels={
                "dsprites_loc": x * GROUPS // PLACES,
                "dsprites_ori": orientation * GROUPS // ORIENTATIONS,
            },
            read=lambda: _image(packed[key]),
            origin=f"{file}, row {key}",
        )

    made = select(raw, {"train": range(len(classes))}, COUNTS, SLICES, example)
    members = sorted(int(one.key) for examples in made.values() for one in examples)
    packed.update(_pack(file, blocks, members))
    return made


def _pack(file: Path, blocks: Iterator[Array], members: Sequence[int]) -> dict[int, Array]:
    """Rows that are members, 512 bytes each. Raises UsageError if rows are missing or not 0/1."""
    wanted, start = np.array(members), 0
    packed: dict[int, Array] = {}
    try:
        for block in blocks:
            if block.shape[1:] != (64, 64) or block.max() > 1:
                raise UsageError(f"{file}: rows from {start} on are not 64 x 64 zeros and ones.")
            rows = wanted[(start <= wanted) & (wanted < start + len(block))]
            bits = np.packbits(block[rows - start].reshape(len(rows), -1), axis=1)
            packed.update(zip(rows.tolist(), bits, strict=True))
            start += len(block)
    except (OSError, ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} is corrupt from row {start} on: {error}") from error
    missing = [row for row in members if row not in packed]
    if missing:
        raise UsageError(f"{file} has only {start} images; row {missing[0]} is needed.")
    return packed


def _image(bits: Array) -> Image.Image:
    return Image.fromarray(np.unpackbits(bits).reshape(64, 64) * np.uint8(255))


def _open_hdf5(file: Path) -> tuple[Array, Iterator[Array]]:
    opened = open_hdf5(file)
    try:
        images, classes = opened["imgs"], opened["latents"]["classes"][:]
    except (KeyError, OSError) as error:
        raise UsageError(f"{file} is not the dSprites file: {error}") from error

    def blocks() -> Iterator[Array]:
        step = images.chunks[0] if images.chunks else BLOCK  # every chunk is unpacked once
        with opened:
            for start in range(0, len(images), step):
                yield images[start : start + step]

    return classes, blocks()


def _open_npz(file: Path) -> tuple[Array, Iterator[Array]]:
    """The images are 3 GB, so that member is read as a stream; nothing pickled is loaded."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            classes = arrays["latents_classes"]
    except (OSError, ValueError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} is not the dSprites file: {error}") from error

    def blocks() -> Iterator[Array]:
        with zipfile.ZipFile(file) as archive, archive.open("imgs.npy") as stream:
            shape = _npy_shape(stream)
            for start in range(0, shape[0], BLOCK):
                rows = min(BLOCK, shape[0] - start)
                data = stream.read(rows * shape[1] * shape[2])
                yield np.frombuffer(data, dtype=np.uint8).reshape(rows, shape[1], shape[2])

    return classes, blocks()


def _npy_shape(stream: IO[bytes]) -> tuple[int, ...]:
    head = io.BytesIO(stream.read(10))
    length = int.from_bytes(head.getvalue()[8:10], "little")
    head = io.BytesIO(head.getvalue() + stream.read(length))
    if np.lib.format.read_magic(head) != (1, 0):
        raise ValueError("imgs.npy is not of format 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(head)
    if fortran or dtype != np.uint8 or len(shape) != 3:
        raise ValueError(f"imgs.npy holds {dtype} of shape {shape}")
    return shape
