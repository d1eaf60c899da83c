"""FGVC: five fine-grained data sets, whole, in the splits of VPT (Jia et al., arXiv:2203.12119).

    <root>/<folder>/{train,val,test}.json      {"relative/path.jpg": class id, ...}
    <root>/<folder>/images/...                 Images/ of the dogs; of flowers and cars <folder>

The repository KMnP/vpt links to the lists, says where below a data set's folder its images lie,
and leaves the folder's name to the user: several are understood here. Split "trainval" is train
and then val.

Sizes of flowers are official, those of the dogs were confirmed by the authors of SSF. The division
into train and val of CUB, NABirds and the cars could not be checked against the lists (their sums
agree with the official training sets of CUB and the cars); nothing is refused for its size.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from petlbench.data import folders, json_lists
from petlbench.data.split import Split
from petlbench.errors import unknown
from petlbench.task import Suite, Task


class Source(NamedTuple):
    folders: tuple[str, ...]
    images: tuple[str, ...]


SOURCES = {
    "cub200": Source(("CUB_200_2011", "cub_200_2011", "cub200", "cub"), ("images",)),
    "nabirds": Source(("nabirds", "NABirds"), ("images",)),
    "oxford_flowers": Source(
        ("OxfordFlower", "OxfordFlowers", "oxford_flowers", "oxford-flowers102"), (".",)
    ),
    "stanford_dogs": Source(
        ("Stanford-dogs", "StanfordDogs", "stanford_dogs", "stanford-dogs"), ("Images",)
    ),
    "stanford_cars": Source(
        ("Stanford-cars", "StanfordCars", "stanford_cars", "stanford-cars"), (".",)
    ),
}
PARTS = {name: (name,) for name in ("train", "val", "test")} | {"trainval": ("train", "val")}


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    if split not in PARTS:
        raise unknown("split of suite fgvc", split, PARTS)
    source = SOURCES[task.name]
    folder = folders.first(root, source.folders)
    images = folders.first(folder, source.images)
    return json_lists.open_split(folder, images, split, PARTS[split], task.classes)


def _task(name: str, classes: int, train: int, val: int, test: int, *aliases: str) -> Task:
    sizes = {"train": train, "val": val, "trainval": train + val, "test": test}
    return Task(name, "FGVC", classes, sizes, aliases=aliases)


SUITE = Suite(
    name="fgvc",
    description="5 whole fine-grained data sets in VPT's splits, from its JSON lists",
    protocol="fgvc-vpt",
    backbone="vit_base_patch16_224.orig_in21k",
    open_split=_open_split,
    needs_data_root=True,
    ranking="mean of tasks",
    tasks=(
        _task("cub200", 200, 5_394, 600, 5_794, "CUB_200_2011", "cub"),
        _task("nabirds", 555, 21_536, 2_393, 24_633, "NABirds"),
        _task("oxford_flowers", 102, 1_020, 1_020, 6_149, "OxfordFlower", "OxfordFlowers"),
        _task("stanford_dogs", 120, 10_800, 1_200, 8_580, "Stanford-dogs", "StanfordDogs"),
        _task("stanford_cars", 196, 7_329, 815, 8_041, "Stanford-cars", "StanfordCars"),
    ),
)
