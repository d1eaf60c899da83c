"""Oxford-IIIT Pet: `annotations/{trainval,test}.txt` have lines `name class species breed`."""

from __future__ import annotations

import re
from pathlib import Path

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, lines, of_file, present
from petlbench.prepare.order import WHOLE, select

TASKS = ("oxford_iiit_pet",)
TITLE = "Oxford-IIIT Pet"
LICENCE = "CC BY-SA 4.0 (not verified)"
HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/pets/"
DOWNLOAD = (
    Download(
        "https://thor.robots.ox.ac.uk/~vgg/data/pets/images.tar.gz",
        "images.tar.gz",
        "sha256:67195c5e1c01f1ab5f9b6a5d22b8c27a580d896ece458917e61d459337fa318d",
        791_918_971,
    ),
    Download(
        "https://thor.robots.ox.ac.uk/~vgg/data/pets/annotations.tar.gz",
        "annotations.tar.gz",
        "sha256:52425fb6de5c424942b7626b428656fcbd798db970a937df61750c0f1d358e91",
        19_173_078,
    ),
)
NEEDS = (
    "images/<name>.jpg, of images.tar.gz",
    "annotations/trainval.txt and annotations/test.txt, of annotations.tar.gz",
)

LISTS = {"train": "trainval", "test": "test"}
COUNTS = {"train": 3_680, "test": 3_669}
SLICES = {
    "train800": ("train", 0, 800),
    "val200": ("train", 2_944, 3_144),
    "test": ("test", 0, WHOLE),
}


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are like `Abyssinian_100.jpg`; classes begin at 1 in the files."""
    labels = {
        split: _labels(present(raw / "annotations" / f"{name}.txt", NEEDS, HOMEPAGE))
        for split, name in LISTS.items()
    }

    def example(split: str, key: str) -> Example:
        return of_file(key, {"oxford_iiit_pet": labels[split][key]}, raw / "images" / key)

    return select(raw, labels, COUNTS, SLICES, example)


def _labels(file: Path) -> dict[str, int]:
    labels = {}
    for line in lines(file):
        found = re.fullmatch(r"([A-Za-z_]+_\d+) (\d+) \d+ \d+", line)
        if not found or not 1 <= int(found[2]) <= 37:
            raise UsageError(f"{file}: {line!r} is not 'name class species breed', class 1..37.")
        labels[f"{found[1]}.jpg"] = int(found[2]) - 1
    return labels
