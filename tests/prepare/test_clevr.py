"""CLEVR: both labels from the scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.errors import UsageError
from petlbench.prepare.sources import clevr


def test_labels_and_pixels(faked: Any) -> None:
    source, raw = faked("clevr")
    splits = source.splits(raw)
    assert all(e.key.startswith("CLEVR_val_") for e in splits["test"])
    for example in splits["train800"] + splits["val200"]:
        index = int(example.key[12:18])
        nearest = 7.3 + 0.4 * index
        expected = sum(nearest > depth for depth in (8, 8.5, 9, 9.5, 10))
        assert example.labels == {"clevr_count": index % 8, "clevr_dist": expected}
        assert example.read().mode == "RGB"  # CLEVR's files are RGBA
        assert example.origin.endswith(f"images/train/{example.key}")


@given(st.lists(st.floats(0.1, 99), min_size=3, max_size=10))
def test_any_scene(depths: list[float]) -> None:
    objects = [{"pixel_coords": [0, 0, depth]} for depth in depths]
    labels = clevr._labels(Path("x.png"), objects)
    nearest = min(depths)
    assert labels["clevr_count"] == len(depths) - 3
    if all(abs(nearest - edge) > 1e-5 for edge in clevr.NEAR):
        assert labels["clevr_dist"] == sum(nearest > edge for edge in (8, 8.5, 9, 9.5, 10))


def test_distances_are_compared_as_single_precision() -> None:
    """As TensorFlow has them: what rounds to 8.5 is not beyond 8.5."""
    scene = [{"pixel_coords": [0, 0, 8.5 + 1e-9]}] * 3
    assert clevr._labels(Path("x.png"), scene)["clevr_dist"] == 1


@pytest.mark.parametrize(
    "objects",
    [
        [],
        [{"pixel_coords": [0, 0, 9]}] * 2,
        [{"pixel_coords": [0, 0, 9]}] * 11,
        [{"pixel_coords": [0, 0, 101]}] * 3,
        [{"pixel_coords": [0, 0, -1]}] * 3,
        [{"pixel_coords": [0, 0]}] * 3,
        [{}] * 3,
    ],
)
def test_impossible_scenes_are_refused(objects: list[Any]) -> None:
    with pytest.raises(UsageError, match=r"x\.png"):
        clevr._labels(Path("x.png"), objects)


@pytest.mark.parametrize("text", ["", "[]", '{"scenes": [{}]}', '{"scenes": 3}', "{"])
def test_other_files_are_refused(faked: Any, text: str) -> None:
    source, raw = faked("clevr")
    (raw / "CLEVR_v1.0" / "scenes" / "CLEVR_val_scenes.json").write_text(text)
    with pytest.raises(UsageError, match=r"CLEVR_val_scenes\.json is not a file of CLEVR scenes"):
        source.splits(raw)


def test_names_stay_in_their_folder(faked: Any) -> None:
    source, raw = faked("clevr")
    file = raw / "CLEVR_v1.0" / "scenes" / "CLEVR_val_scenes.json"
    scenes = json.loads(file.read_text())
    scenes["scenes"][3]["image_filename"] = "CLEVR_val_/../../x.png"
    file.write_text(json.dumps(scenes))
    with pytest.raises(UsageError, match=r"has image 'CLEVR_val_/\.\./\.\./x\.png'"):
        source.splits(raw)
