"""Diabetic Retinopathy Detection (Kaggle 2015), processed like TFDS' `btgraham-300`.

That is the winner's recipe (B. Graham): scale the eye to a radius of 300 pixels, subtract the
local average, and crop to 90 % of the radius; TFDS keeps the result as JPEG of quality 72, and so
that JPEG is part of what the task consists of (tensorflow_datasets 4.4.0,
`diabetic_retinopathy_detection`).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, lines, of_file, present
from petlbench.prepare.opencv import Pixels, blur, disc, jpeg, scale
from petlbench.prepare.order import select, three_slices

TASKS = ("diabetic_retinopathy",)
TITLE = "Diabetic Retinopathy Detection (Kaggle 2015)"
LICENCE = "rules of the Kaggle competition"
HOMEPAGE = "https://www.kaggle.com/c/diabetic-retinopathy-detection/data"
DOWNLOAD = (
    Download(
        "https://storage.googleapis.com/kaggle-forum-message-attachments/90528/2877/"
        "retinopathy_solution.csv",
        "retinopathy_solution.csv",
        "sha256:a6af3d66804e81887da89b9261bcfb7da4f5bacedb070f1b5db83fa879ab60c9",
        1_181_257,
    ),
)
NEEDS = (
    "train/<patient>_<left|right>.jpeg, of train.zip.001-005 (a Kaggle account is needed)",
    "test/<patient>_<left|right>.jpeg, of test.zip.001-007",
    "trainLabels.csv, of trainLabels.csv.zip",
    "retinopathy_solution.csv, the labels of the test images",
)

COUNTS = {"train": 35_126, "validation": 10_906, "test": 42_670}
SLICES = three_slices()
RADIUS, KEPT, QUALITY = 300, 0.9, 72


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are like `10_left`; validation and test are the public and private leaderboard's."""
    solution = present(raw / "retinopathy_solution.csv", NEEDS, HOMEPAGE)
    labels = {
        "train": _labels(present(raw / "trainLabels.csv", NEEDS, HOMEPAGE), None),
        "validation": _labels(solution, "Public"),
        "test": _labels(solution, "Private"),
    }

    def example(split: str, key: str) -> Example:
        file = raw / ("train" if split == "train" else "test") / f"{key}.jpeg"
        return of_file(key, {"diabetic_retinopathy": labels[split][key]}, file, _process)

    return select(raw, labels, COUNTS, SLICES, example)


def _labels(file: Path, usage: str | None) -> dict[str, int]:
    """Image -> level 0..4, of one usage."""
    labels = {}
    for row in csv.DictReader(io.StringIO("\n".join(lines(file)))):
        key, level = str(row.get("image")), str(row.get("level"))
        if level not in set("01234") or key != Path(key).name or (usage and "Usage" not in row):
            raise UsageError(f"{file}: {row} is not an image, a level 0..4 and a usage.")
        if usage in (None, row.get("Usage")):
            labels[key] = int(level)
    return labels


def _process(image: Image.Image) -> Image.Image:
    """The eye of 300 pixels' radius on grey, without its rim; about 540 x 540."""
    pixels: Pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    middle = pixels[len(pixels) // 2].sum(axis=1, dtype=np.int64)
    radius = (middle > middle.mean() / 10).sum() / 2
    if radius < 1:  # nothing there: TFDS then takes half the height, and so do we
        radius = len(pixels) / 2
    pixels = scale(pixels, RADIUS / radius)
    sharp = np.rint(4.0 * pixels - 4.0 * blur(pixels, RADIUS / 30) + 128).clip(0, 255)
    kept = int(RADIUS * KEPT)
    height, width = pixels.shape[:2]
    sharp[~disc(height, width, kept)] = 128
    rows = slice(max(height // 2 - kept, 0), min(height // 2 + kept, height))
    columns = slice(max(width // 2 - kept, 0), min(width // 2 + kept, width))
    return jpeg(sharp[rows, columns].astype(np.uint8), QUALITY)
