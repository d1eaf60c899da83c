"""Describable Textures (DTD) r1.0.1, in the first of its ten partitions."""

from __future__ import annotations

from pathlib import Path

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, lines, of_file, present
from petlbench.prepare.order import select, three_slices

TASKS = ("dtd",)
TITLE = "Describable Textures Dataset r1.0.1"
LICENCE = "for research use (not verified)"
HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/dtd/"
DOWNLOAD = (
    Download(
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        "dtd-r1.0.1.tar.gz",
        "sha256:e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
        625_239_812,
    ),
)
NEEDS = (
    "dtd/images/<texture>/, of dtd-r1.0.1.tar.gz (which is a tar file in spite of its name)",
    "dtd/labels/train1.txt, val1.txt and test1.txt",
)

NAMES = """
    banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted
    fibrous flecked freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined
    marbled matted meshed paisley perforated pitted pleated polka-dotted porous potholed scaly
    smeared spiralled sprinkled stained stratified striped studded swirly veined waffled woven
    wrinkled zigzagged
"""
CLASSES = tuple(NAMES.split())
LISTS = {"train": "train1", "validation": "val1", "test": "test1"}
COUNTS = {"train": 1_880, "validation": 1_880, "test": 1_880}
SLICES = three_slices()


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are like `banded/banded_0002.jpg`: the lines of the lists."""
    base = raw / "dtd"
    files = {
        split: present(base / "labels" / f"{name}.txt", NEEDS, HOMEPAGE)
        for split, name in LISTS.items()
    }

    def example(split: str, key: str) -> Example:
        texture, _, name = key.partition("/")
        if texture not in CLASSES or not name or name != Path(name).name:
            raise UsageError(f"{files[split]}: {key!r} is not <texture>/<file>.")
        return of_file(key, {"dtd": CLASSES.index(texture)}, base / "images" / texture / name)

    return select(raw, {s: lines(f) for s, f in files.items()}, COUNTS, SLICES, example)
