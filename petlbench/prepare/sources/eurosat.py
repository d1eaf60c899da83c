"""EuroSAT, RGB: a folder per class of 64 x 64 JPEGs, `2750/<Class>/<Class>_<number>.jpg`."""

from __future__ import annotations

from pathlib import Path

from petlbench.prepare.examples import Download, Example, by_class, of_file
from petlbench.prepare.order import select

TASKS = ("eurosat",)
TITLE = "EuroSAT (RGB)"
LICENCE = "MIT (not verified)"
HOMEPAGE = "https://github.com/phelber/eurosat"
DOWNLOAD = (
    Download(
        "http://madm.dfki.de/files/sentinel/EuroSAT.zip",
        "EuroSAT.zip",
        "sha256:8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
        94_280_567,
    ),
)
NEEDS = ("2750/<Class>/<Class>_<number>.jpg, 27,000 images, of EuroSAT.zip",)

CLASSES = (
    *("AnnualCrop", "Forest", "HerbaceousVegetation", "Highway", "Industrial"),
    *("Pasture", "PermanentCrop", "Residential", "River", "SeaLake"),
)
COUNTS = {"train": 27_000}
SLICES = {
    "train800": ("train", 0, 800),
    "val200": ("train", 16_200, 16_400),
    "test": ("train", 21_600, 27_000),
}


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are like `Forest_Forest_687.jpg`: class, underscore, file name."""
    found = by_class(raw / "2750", CLASSES, NEEDS, HOMEPAGE)

    def example(split: str, key: str) -> Example:
        label, file = found[key]
        return of_file(key, {"eurosat": label}, file)

    return select(raw, {"train": found}, COUNTS, SLICES, example)
