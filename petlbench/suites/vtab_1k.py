"""VTAB-1K (Zhai et al., 2019, arXiv:1910.04867): 19 tasks, 1,000 training images each.

Read from the layout that NOAH, Convpass and their successors share; folder names, class counts
and test sizes are theirs.
"""

from __future__ import annotations

from pathlib import Path

from petlbench.data import lists
from petlbench.data.split import Split
from petlbench.task import Suite, Task

# In the order of the labels. Those of the other tasks are read from `classes.txt`.
CLASS_NAMES = {
    "cifar": """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house
        kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
        mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree
        plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew
        skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
        telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf
        woman worm
    """,
}


def _task(
    name: str, group: str, classes: int, test: int, *aliases: str, ordinal: bool = False
) -> Task:
    sizes = {"train800": 800, "val200": 200, "train800val200": 1000, "test": test}
    words = CLASS_NAMES.get(name, "").split()
    names = tuple(word.replace("_", " ") for word in words)
    return Task(name, group, classes, sizes, aliases=aliases, class_names=names, ordinal=ordinal)


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    # Test sizes are not enforced: subsets are common, and the record holds the true count.
    expected = 0 if split == "test" else task.sizes.get(split, 0)
    return lists.open_split(root, task.name, split, task.classes, expected)


SUITE = Suite(
    name="vtab-1k",
    description="19 tasks in three groups, 1,000 training images each, from image folders",
    protocol="vtab-1k",
    backbone="vit_base_patch16_224.orig_in21k",
    open_split=_open_split,
    needs_data_root=True,
    tasks=(
        _task("cifar", "Natural", 100, 10_000, "cifar100"),
        _task("caltech101", "Natural", 102, 6_084),
        _task("dtd", "Natural", 47, 1_880),
        _task("oxford_flowers102", "Natural", 102, 6_149, "flowers102"),
        _task("oxford_iiit_pet", "Natural", 37, 3_669, "oxford_pet", "pets"),
        _task("svhn", "Natural", 10, 26_032),
        _task("sun397", "Natural", 397, 21_750),
        _task("patch_camelyon", "Specialized", 2, 32_768),
        _task("eurosat", "Specialized", 10, 5_400),
        _task("resisc45", "Specialized", 45, 6_300),
        _task("diabetic_retinopathy", "Specialized", 5, 42_670, ordinal=True),
        _task("clevr_count", "Structured", 8, 15_000),
        _task("clevr_dist", "Structured", 6, 15_000),
        _task("dmlab", "Structured", 6, 22_735),
        _task("kitti", "Structured", 4, 711),
        _task("dsprites_loc", "Structured", 16, 73_728),
        _task("dsprites_ori", "Structured", 16, 73_728),
        _task("smallnorb_azi", "Structured", 18, 12_150),
        _task("smallnorb_ele", "Structured", 9, 12_150),
    ),
)
