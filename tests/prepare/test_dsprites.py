"""dSprites: rows of the HDF5 and of the npz file are the same; binary pixels become 0 and 255."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest

from petlbench.errors import UsageError
from prepare import fakes


@pytest.mark.parametrize("write", [fakes.dsprites, fakes.dsprites_npz])
def test_pixels_and_labels(faked: Any, write: Any) -> None:
    source, raw = faked("dsprites", write)
    images, classes = fakes.sprites(30)
    for examples in source.splits(raw).values():
        for example in examples:
            row = int(example.key)
            assert (np.asarray(example.read()) == images[row] * 255).all()
            assert example.labels == {
                "dsprites_loc": int(classes[row, 4] // 2),
                "dsprites_ori": int(classes[row, 3] // 2.5),
            }


def test_orientations_are_grouped_as_published() -> None:
    """Groups of 2.5: of 3 and 2 by turns."""
    from petlbench.prepare.sources import dsprites

    labels = [o * dsprites.GROUPS // dsprites.ORIENTATIONS for o in range(40)]
    assert np.bincount(labels).tolist() == [3, 2] * 8


def test_corrupt_rows_are_refused(faked: Any) -> None:
    source, raw = faked("dsprites")
    with h5py.File(raw / f"{source.NAME}.hdf5", "r+") as file:
        file["imgs"][13, 5, 5] = 7
    with pytest.raises(UsageError, match="rows from 7 on are not 64 x 64 zeros and ones"):
        source.splits(raw)


def test_images_that_lack_are_named(faked: Any) -> None:
    source, raw = faked("dsprites")
    with h5py.File(raw / f"{source.NAME}.hdf5", "r+") as file:
        images = file["imgs"][:20]
        del file["imgs"]
        file["imgs"] = images
    with pytest.raises(UsageError, match=r"has only 20 images; row \d+ is needed"):
        source.splits(raw)


def test_without_h5py_it_says_what_to_install(faked: Any, monkeypatch: Any) -> None:
    source, raw = faked("dsprites")
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(UsageError, match=r"pip install 'petlbench\[data\]'"):
        source.splits(raw)
