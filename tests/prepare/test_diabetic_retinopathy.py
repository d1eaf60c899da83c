"""Diabetic retinopathy: splits by the leaderboards, and the processing of the eye."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.errors import UsageError
from petlbench.prepare.sources import diabetic_retinopathy as source_module


def test_labels_and_splits(faked: Any) -> None:
    source, raw = faked("diabetic_retinopathy")
    splits = source.splits(raw)
    keys = {split: sorted(e.key for e in examples) for split, examples in splits.items()}
    assert keys == {
        "train800": [f"{n}_left" for n in range(6)],
        "val200": [f"{n}_right" for n in (1, 2, 4, 5)],  # the public leaderboard
        "test": [f"{n}_right" for n in (0, 3, 6)],
    }
    for examples in splits.values():
        for example in examples:
            assert example.labels == {"diabetic_retinopathy": int(example.key[0]) % 5}


def eye(radius: int, height: int, width: int) -> Image.Image:
    """An eye of one colour with a brighter dot in the middle, on black."""
    y, x = np.ogrid[:height, :width]
    distance = np.hypot(y - height // 2, x - width // 2)
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[distance <= radius] = (150, 90, 40)
    pixels[distance <= radius / 10] = (180, 120, 70)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(("radius", "height", "width"), [(80, 200, 260), (600, 1201, 1300)])
def test_the_eye_is_scaled_and_cropped(radius: int, height: int, width: int) -> None:
    pixels = np.asarray(source_module._process(eye(radius, height, width))).astype(int)
    assert pixels.shape == (540, 540, 3)  # 90 % of a radius of 300
    assert np.abs(pixels[:40, :40] - 128).max() < 6  # beyond the disc: grey
    assert np.abs(pixels[270, 100:150] - 128).max() < 12  # the flat part has no local contrast
    assert pixels[270, 296].mean() > 150  # the rim of the dot stands out
    assert pixels[270, 306].mean() < 110


def test_an_eye_that_is_cut_off_keeps_its_shape() -> None:
    """Kaggle's images often end above and below the eye."""
    image = eye(100, 140, 260)
    width, height = source_module._process(image).size
    assert width == 540 and abs(height - 420) < 6


def test_an_image_without_an_eye_is_scaled_by_its_height() -> None:
    image = source_module._process(Image.new("RGB", (90, 60)))
    assert image.size == (540, 540)


@pytest.mark.parametrize("row", ["1_left,5,Public", "1_left,,Public", "../x,1,Public", "1_left,1"])
def test_other_tables_are_refused(faked: Any, row: str) -> None:
    source, raw = faked("diabetic_retinopathy")
    header = "image,level,Usage" if row.count(",") == 2 else "image,level"
    (raw / "retinopathy_solution.csv").write_text(f"{header}\n{row}\n")
    with pytest.raises(UsageError, match=r"retinopathy_solution\.csv: .* is not an image"):
        source.splits(raw)


def test_the_middle_row_tells_the_radius(tmp_path: Path) -> None:
    """A bright frame elsewhere does not matter."""
    image = np.asarray(eye(80, 200, 260)).copy()
    image[:5] = 255
    assert source_module._process(Image.fromarray(image)).size == (540, 540)
