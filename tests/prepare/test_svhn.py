"""SVHN: images along the last axis, and the digit 0 that is written as 10."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from petlbench.errors import UsageError


def test_pixels_and_labels(faked: Any) -> None:
    source, raw = faked("svhn")
    images = loadmat(raw / "test_32x32.mat")["X"]
    examples = source.splits(raw)["test"]
    assert len(examples) == 9
    for example in examples:
        index = int(example.key)
        assert example.labels == {"svhn": (index + 1) % 10}
        assert (np.asarray(example.read()) == images[..., index]).all()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.ones((9, 1))}, "no array 'X'"),
        ({"X": np.zeros((32, 32, 3, 8), np.uint8), "y": np.ones((9, 1))}, "not .32, 32, 3, N"),
        ({"X": np.zeros((32, 32, 3, 9)), "y": np.ones((9, 1))}, "not .32, 32, 3, N"),
        ({"X": np.zeros((32, 32, 3, 9), np.uint8), "y": np.zeros((9, 1))}, r"not 1\.\.10"),
    ],
)
def test_other_arrays_are_refused(faked: Any, arrays: dict[str, Any], said: str) -> None:
    source, raw = faked("svhn")
    savemat(raw / "test_32x32.mat", arrays)
    with pytest.raises(UsageError, match=rf"test_32x32\.mat .*{said}"):
        source.splits(raw)
