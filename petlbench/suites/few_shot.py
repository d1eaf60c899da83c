"""Few-shot fine-grained recognition: five data sets with 1, 2, 4, 8 and 16 images a class.

The setting of NOAH (Zhang et al., 2022, arXiv:2206.04673) and of Convpass (arXiv:2207.07039,
section 4.2), read from the lists that the repository ZhangYuanhan-AI/NOAH publishes under
`data/few-shot`, laid beside the images:

    <root>/<folder>/annotations/train_meta.list.num_shot_K.seed_S    K = 1 ... 16, S = 0, 1, 2
    <root>/<folder>/annotations/{val_meta,test_meta}.list            relative/path label
    <root>/<folder>/images/...           of stanford-cars: <folder>/cars_train/..., cars_test/...

The run's seed S chooses the list, so that the mean over three seeds is one over three samples of
images. Flowers, Food and Pets have CoOp's splits (2,463 test images of flowers, not 6,149), and
the shots of one seed do not contain one another. As published, the lists of one shot of
oxford_pets name each of their 37 images twice, which fills a batch of 64; they are kept so.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from petlbench.data import folders, lists
from petlbench.data.split import Split
from petlbench.errors import UsageError, unknown
from petlbench.task import Suite, Task


class Source(NamedTuple):
    classes: int
    val: int
    test: int
    folders: tuple[str, ...]
    """NOAH's lists, NOAH's scripts and CoOp name them differently; also aliases of the tasks."""
    images: tuple[str, ...] = ("images",)


SHOTS = (1, 2, 4, 8, 16)
SEEDS = (0, 1, 2)
LISTS = {
    "train": "train_meta.list.num_shot_{shots}.seed_{seed}",
    "val": "val_meta.list",
    "test": "test_meta.list",
}
# Numbers counted in NOAH's lists.
SOURCES = {
    "fgvc_aircraft": Source(100, 3_333, 3_333, ("fgvc-aircraft", "fgvc_aircraft")),
    "food101": Source(101, 20_200, 30_300, ("food101", "food-101")),
    "oxford_flowers102": Source(
        *(102, 1_633, 2_463, ("oxford-flowers102", "oxford_flowers102", "oxford_flowers")),
        images=("images", "jpg"),
    ),
    "oxford_pets": Source(37, 736, 3_669, ("oxford-pets", "oxford_pets")),
    "stanford_cars": Source(
        # the first spelling is that of the released lists
        *(196, 1_635, 8_041, ("standford-cars", "stanford-cars", "stanford_cars")),
        images=(".",),
    ),
}


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    if split not in LISTS:
        raise unknown("split of suite few-shot", split, LISTS)
    if split == "train" and seed not in SEEDS:
        raise UsageError(
            f"the run's seed chooses the list of training images, and there are lists for seeds "
            f"0, 1 and 2, none for {seed}: --seeds 3 at most."
        )
    dataset, _, shots = task.name.partition("@")
    source = SOURCES[dataset]
    folder = folders.first(root, source.folders)
    file = folder / "annotations" / LISTS[split].format(shots=shots, seed=seed)
    expected = task.sizes[split] if split == "train" else 0  # subsets of the others are common
    base = folders.first(folder, source.images)
    opened = lists.read(file, base, split, source.classes, expected)
    if split == "train":
        counts = np.bincount(opened.labels, minlength=source.classes)
        for label, count in enumerate(counts):
            if count != expected // source.classes:
                raise UsageError(
                    f"{file} lists {count} images of class {label}; "
                    f"{expected // source.classes} are expected of every class."
                )
    return opened


def _task(name: str, shots: int) -> Task:
    source = SOURCES[name]
    doubled = name == "oxford_pets" and shots == 1
    sizes = {
        "train": shots * source.classes * (2 if doubled else 1),
        "val": source.val,
        "test": source.test,
    }
    return Task(
        name=f"{name}@{shots}",
        group=f"{shots} shot{'s' if shots > 1 else ''}",
        classes=source.classes,
        sizes=sizes,
        description="each image is listed twice, as published" if doubled else "",
        aliases=tuple(f"{folder}@{shots}" for folder in source.folders if folder != name),
    )


SUITE = Suite(
    name="few-shot",
    description="5 fine-grained tasks with 1, 2, 4, 8 and 16 images a class, from NOAH's lists",
    protocol="few-shot-noah",
    backbone="vit_base_patch16_224.orig_in21k",
    open_split=_open_split,
    needs_data_root=True,
    tasks=tuple(_task(name, shots) for shots in SHOTS for name in SOURCES),
    methods=("convpass", "adapter", "adaptformer", "lora", "vpt", "linear"),
)
