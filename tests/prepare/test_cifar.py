"""CIFAR-100: planes of colour, and the fine label."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from petlbench.errors import UsageError


def test_pixels_and_labels(faked: Any) -> None:
    source, raw = faked("cifar")
    rows = np.fromfile(raw / "cifar-100-binary" / "train.bin", dtype=np.uint8).reshape(30, 3074)
    for example in source.splits(raw)["train800"]:
        row = rows[int(example.key)]
        assert example.labels == {"cifar": int(example.key) * 7 % 100}
        pixels = np.asarray(example.read())
        assert pixels.shape == (32, 32, 3)
        assert (pixels[:, :, 0].ravel() == row[2:1026]).all()  # red first, row by row
        assert (pixels[:, :, 2].ravel() == row[2050:]).all()
        assert example.origin.endswith(f"train.bin, row {example.key}")


def test_bad_files(faked: Any) -> None:
    source, raw = faked("cifar")
    file = raw / "cifar-100-binary" / "train.bin"
    content = bytearray(file.read_bytes())
    file.write_bytes(content[:-1])
    with pytest.raises(UsageError, match=r"train\.bin is not a whole number of rows of 3074"):
        source.splits(raw)
    content[1::3074] = bytes([100]) * 30  # another file with rows of this size
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"train\.bin, row \d+: the fine label is 100"):
        source.splits(raw)
