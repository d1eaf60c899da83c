"""small NORB: binary matrices, packed or not; the first camera."""

from __future__ import annotations

import gzip
import struct
from typing import Any

import numpy as np
import pytest

from petlbench.errors import UsageError
from prepare.fakes import matrix, noise


@pytest.mark.parametrize("packed", [False, True])
def test_pixels_and_labels(faked: Any, packed: bool) -> None:
    source, raw = faked("smallnorb")
    if packed:
        for file in list(raw.iterdir()):
            file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
            file.unlink()
    images = noise(len(source.STEMS["test"]), 30, 2, 96, 96)
    splits = source.splits(raw)
    for example in splits["val200"] + splits["test"]:
        row = int(example.key)
        assert example.labels == {"smallnorb_azi": row % 18, "smallnorb_ele": row % 9}
        assert (np.asarray(example.read()) == images[row, 0]).all()
        assert "testing" in example.origin


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        matrix(noise(0, 30, 4)),  # bytes of the right shape, too few
        matrix(np.zeros((30, 5), np.int32)),
        matrix(np.zeros((30, 4), np.int32))[:-4],
        struct.pack("<5i", 0x1E3D4C54, 2, -30, 4, 1),
        struct.pack("<5i", 0x1E3D4C53, 2, 30, 4, 1) + bytes(480),
    ],
)
def test_other_matrices_are_refused(faked: Any, content: bytes) -> None:
    source, raw = faked("smallnorb")
    stem = source.STEMS["train"]
    (raw / f"{stem}-info.mat").write_bytes(content)
    with pytest.raises(UsageError, match=rf"{stem}-info\.mat|impossible"):
        source.splits(raw)


def test_impossible_angles_are_refused(faked: Any) -> None:
    source, raw = faked("smallnorb")
    info = np.tile(np.array([1, 3, 7, 0], dtype=np.int32), (30, 1))
    (raw / f"{source.STEMS['train']}-info.mat").write_bytes(matrix(info))
    with pytest.raises(UsageError, match="azimuth 7 or elevation 3 is impossible"):
        source.splits(raw)
