"""CLEVR v1.0: how many objects there are, and how far the nearest is.

Scenes are JSON: {"scenes": [{"image_filename", "objects": [{"pixel_coords": [x, y, depth]}]}]}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, of_file, present
from petlbench.prepare.order import WHOLE, select

TASKS = ("clevr_count", "clevr_dist")
TITLE = "CLEVR v1.0"
LICENCE = "CC BY 4.0 (not verified)"
HOMEPAGE = "https://cs.stanford.edu/people/jcjohns/clevr/"
DOWNLOAD = (
    Download(
        "https://dl.fbaipublicfiles.com/clevr/CLEVR_v1.0.zip",
        "CLEVR_v1.0.zip",
        "sha256:5cd61cf1096ed20944df93c9adb31e74d189b8459a94f54ba00090e5c59936d1",
        19_021_600_724,
    ),
)
NEEDS = (
    "CLEVR_v1.0/scenes/CLEVR_train_scenes.json and CLEVR_val_scenes.json, of CLEVR_v1.0.zip",
    "CLEVR_v1.0/images/train/ and CLEVR_v1.0/images/val/",
)

FOLDERS = {"train": "train", "validation": "val"}  # VTAB tests on the validation images
COUNTS = {"train": 70_000, "validation": 15_000}
SLICES = {
    "train800": ("train", 0, 800),
    "val200": ("train", 63_000, 63_200),
    "test": ("validation", 0, WHOLE),
}
NEAR = np.array([0, 8, 8.5, 9, 9.5, 10, 100], dtype=np.float32)
"""Depth of the nearest object, at which the next class begins."""


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are the names of the images."""
    base = raw / "CLEVR_v1.0"
    scenes = {
        split: _scenes(
            present(base / "scenes" / f"CLEVR_{folder}_scenes.json", NEEDS, HOMEPAGE), folder
        )
        for split, folder in FOLDERS.items()
    }

    def example(split: str, key: str) -> Example:
        file = base / "images" / FOLDERS[split] / key
        return of_file(key, _labels(file, scenes[split][key]), file)

    return select(raw, scenes, COUNTS, SLICES, example)


def _scenes(file: Path, folder: str) -> dict[str, list[Any]]:
    """Name of the image -> its objects."""
    try:
        scenes = json.loads(file.read_text(encoding="utf-8"))["scenes"]
        found = {str(scene["image_filename"]): list(scene["objects"]) for scene in scenes}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{file} is not a file of CLEVR scenes: {error!r}") from error
    for name in found:
        if not (name.startswith(f"CLEVR_{folder}_") and name == Path(name).name):
            raise UsageError(f"{file} has image {name!r}, not CLEVR_{folder}_<number>.png.")
    return found


def _labels(file: Path, objects: list[Any]) -> dict[str, int]:
    """How many beyond 3, and the last threshold that the nearest object lies behind."""
    try:
        nearest = min(np.float32(thing["pixel_coords"][2]) for thing in objects)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise UsageError(f"the scene of {file} has no objects with depths: {error!r}") from error
    if not 3 <= len(objects) <= 10 or nearest <= NEAR[0]:
        raise UsageError(f"{file}: {len(objects)} objects, the nearest at {nearest}: not CLEVR.")
    dist = int(np.flatnonzero(nearest > NEAR)[-1])
    if dist > 5:
        raise UsageError(f"{file}: the nearest object at {nearest} is beyond {NEAR[-1]}.")
    return {"clevr_count": len(objects) - 3, "clevr_dist": dist}
