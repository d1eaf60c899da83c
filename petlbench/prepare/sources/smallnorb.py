"""smallNORB: grey stereo pairs of toys; the first camera's image, azimuth and elevation.

Binary matrices: int32 magic number (type of the elements), int32 number of dimensions, at least
three int32 sizes, then the elements, little-endian. `dat` is (N, 2, 96, 96) bytes; `info` (N, 4)
int32: instance, elevation 0..8, azimuth 0..34 in steps of 2, lighting.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, present
from petlbench.prepare.order import WHOLE, select

TASKS = ("smallnorb_azi", "smallnorb_ele")
TITLE = "small NORB v1.0"
LICENCE = "for research use (not verified)"
HOMEPAGE = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small/"
STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
_FILES = (
    (
        f"{STEMS['train']}-dat.mat.gz",
        "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
        131_896_188,
    ),
    (
        f"{STEMS['train']}-info.mat.gz",
        "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
        71_052,
    ),
    (
        f"{STEMS['test']}-dat.mat.gz",
        "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
        130_799_817,
    ),
    (
        f"{STEMS['test']}-info.mat.gz",
        "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
        10_428,
    ),
)
DOWNLOAD = tuple(
    Download(f"{HOMEPAGE}{name}", name, f"sha256:{checksum}", size)
    for name, checksum, size in _FILES
)
NEEDS = tuple(f"{name}, or the same without .gz" for name, _, _ in _FILES)

COUNTS = {"train": 24_300, "test": 24_300}
SLICES = {  # VTAB validates on the first half of the test images
    "train800": ("train", 0, 800),
    "val200": ("test", 0, 200),
    "test": ("test", 12_150, WHOLE),
}
MAGIC: dict[int, np.dtype[Any]] = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are the numbers of the rows."""
    images, info = {}, {}
    for split, stem in STEMS.items():
        images[split] = _matrix(raw, f"{stem}-dat.mat", (2, 96, 96))
        info[split] = _matrix(raw, f"{stem}-info.mat", (4,))
        if len(images[split]) != len(info[split]):
            raise UsageError(
                f"{raw}: {stem}-dat.mat has {len(images[split])} images, "
                f"{stem}-info.mat {len(info[split])} rows."
            )

    def example(split: str, key: int) -> Example:
        pixels = images[split][key, 0]
        _, elevation, azimuth, _ = (int(value) for value in info[split][key])
        where = f"{raw / STEMS[split]}, row {key}"
        if azimuth not in range(0, 36, 2) or elevation not in range(9):
            raise UsageError(f"{where}: azimuth {azimuth} or elevation {elevation} is impossible.")
        labels = {"smallnorb_azi": azimuth // 2, "smallnorb_ele": elevation}
        return Example(str(key), labels, lambda: Image.fromarray(pixels), where)

    return select(raw, {s: range(len(i)) for s, i in info.items()}, COUNTS, SLICES, example)


def _matrix(raw: Path, name: str, row: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """(N, *row), from the file or from its gzip. Raises UsageError if its sizes do not add up."""
    file = raw / name
    if not file.is_file():
        file = present(raw / f"{name}.gz", NEEDS, HOMEPAGE)
    try:
        data = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"{file} is not a complete gzip file: {error}") from error
    head = np.frombuffer(data[: len(data) // 4 * 4][:64], dtype="<i4").tolist()
    dimensions = head[1] if len(head) > 2 else 0
    if not head or head[0] not in MAGIC or dimensions != len(row) + 1:
        raise UsageError(f"{file} does not begin like a matrix of small NORB with rows {row}.")
    shape = tuple(head[2 : 2 + dimensions])
    kind, start = MAGIC[head[0]], 8 + 4 * max(3, dimensions)
    if shape[1:] != row or len(data) != start + math.prod(shape) * kind.itemsize:
        raise UsageError(f"{file}: {len(data)} bytes are not a matrix {shape} with rows {row}.")
    return np.frombuffer(data, dtype=kind, offset=start).reshape(shape)
