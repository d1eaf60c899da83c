"""PatchCamelyon: rows of HDF5 files, which may still be packed."""

from __future__ import annotations

import gzip
from typing import Any

import h5py
import numpy as np
import pytest

from petlbench.errors import UsageError
from prepare.fakes import noise


def test_pixels_labels_and_packed_files(faked: Any) -> None:
    source, raw = faked("patch_camelyon")
    for file in list(raw.iterdir()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    examples = source.splits(raw)["val200"]
    assert len(examples) == 7
    for example in examples:
        word, _, row = example.key.partition("_")
        assert word == "valid" and example.labels == {"patch_camelyon": int(row) % 2}
        assert (np.asarray(example.read()) == noise(7, 7, 96, 96, 3)[int(row)]).all()
    assert not list(raw.glob("*.partial")) and len(list(raw.glob("*.h5"))) == 6


def test_a_broken_gzip_leaves_nothing_behind(faked: Any) -> None:
    source, raw = faked("patch_camelyon")
    file = raw / f"{source.STEM}test_x.h5"
    packed = gzip.compress(file.read_bytes())
    file.unlink()
    file.with_name(f"{file.name}.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(UsageError, match=r"test_x\.h5\.gz cannot be unpacked"):
        source.splits(raw)
    assert not file.exists() and not list(raw.glob("*.partial"))


@pytest.mark.parametrize("labels", [np.zeros((8, 1, 1, 1)), np.full((9, 1, 1, 1), 2)])
def test_other_labels_are_refused(faked: Any, labels: Any) -> None:
    source, raw = faked("patch_camelyon")
    with h5py.File(raw / f"{source.STEM}test_y.h5", "w") as file:
        file["y"] = labels.astype(np.uint8)
    with pytest.raises(UsageError, match=r"test_x\.h5 has images of shape .9, 96, 96, 3."):
        source.splits(raw)
