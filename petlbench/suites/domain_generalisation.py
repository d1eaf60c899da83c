"""Domain generalisation: trained on 16 images a class of ImageNet, tested on its variants.

The setting of CoOp (Zhou et al., 2022, arXiv:2109.01134), in which Convpass-CLIP is compared
(arXiv:2207.07039, section 4.3), read from the lists that the repository ZhangYuanhan-AI/NOAH
publishes under `data/few-shot/imagenet` and `data/domain-generalization`:

    <root>/imagenet/annotations/train_meta.list.num_shot_16.seed_S    S = 0, 1, 2: the run's seed
    <root>/imagenet/annotations/val_meta.list                         relative/path label
    <root>/imagenet/{train,val}/...
    <root>/imagenet/classes.txt                                       names, for the text head
    <root>/<variant>/annotations/val_meta.list                        paths below <variant>
    <root>/<variant>/...

All labels are those of ImageNet, 0 to 999. ImageNet-A and ImageNet-R have 200 of the classes.
CoOp, and Convpass after it, let only those be predicted, while NOAH chooses among all 1,000,
which is harder; both are measured, each under its own name, and never averaged together.

What a search selects on, "heldout", is NOAH's `unofficial_val_list_4_shot16seed0`: 2,959 images
of ImageNet's training set that are not in the list of seed 0, though in those of seeds 1 and 2.
"""

from __future__ import annotations

from pathlib import Path

from petlbench.data import folders, lists
from petlbench.data.split import Split
from petlbench.errors import UsageError, unknown
from petlbench.task import Suite, Target, Task

SEEDS = (0, 1, 2)
# split -> list, and where its paths start; images of CoOp's layout lie one folder deeper
SOURCE = {
    "train": ("train_meta.list.num_shot_16.seed_{seed}", ("train", "images/train")),
    "val": ("val_meta.list", ("val", "images/val")),
    "heldout": ("unofficial_val_list_4_shot16seed0", ("train", "images/train")),
}
# split -> its folder; NOAH's spelling first
VARIANTS = {
    "imagenetv2": ("imagenetv2",),
    "imagenet-sketch": ("imagenet-sketch",),
    "imagenet-a": ("imagenet-adversarial", "imagenet-a"),
    "imagenet-r": ("imagenet-rendition", "imagenet-r"),
}


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    if split in VARIANTS:
        base = folders.first(root, VARIANTS[split])
        file = base / "annotations" / "val_meta.list"
        _require_numbered_folders(file, base, task.classes)
        return lists.read(file, base, split, task.classes)
    if split not in SOURCE:
        raise unknown("split of suite domain-generalisation", split, [*SOURCE, *VARIANTS])
    seeds = {"train": SEEDS, "heldout": (0,), "val": (seed,)}[split]
    if seed not in seeds:
        raise UsageError(
            f"the run's seed chooses the list of training images, and split {split!r} is there "
            f"for {', '.join(map(str, seeds))}, not for {seed}: --seeds {len(seeds)} at most."
        )
    name, starts = SOURCE[split]
    folder = folders.first(root, ("imagenet",))
    file = folder / "annotations" / name.format(seed=seed)
    # the others may be subsets, and the record holds the true count
    expected = task.sizes[split] if split == "train" else 0
    return lists.read(file, folders.first(folder, starts), split, task.classes, expected)


def _require_numbered_folders(file: Path, base: Path, classes: int) -> None:
    """Folders that are called by a number, those of ImageNetV2, are the label.

    A list made of folders sorted as texts (0, 1, 10, 100, ...) would number them differently.
    """
    for path, label in zip(*lists.parse(file, base, classes), strict=True):
        folder = Path(path).parent.name
        if folder.isdecimal() and int(folder) != label:
            raise UsageError(
                f"{file}: {path[:80]!r} has label {label}, but its folder says {folder}."
            )


SUITE = Suite(
    name="domain-generalisation",
    description="16 images a class of ImageNet, tested on ImageNet, V2, Sketch, A and R",
    protocol="dg-coop",
    backbone="clip:ViT-B-16.openai",
    open_split=_open_split,
    needs_data_root=True,
    ranking="Targets",
    methods=("convpass", "adapter", "lora", "full", "linear"),
    tasks=(
        Task(
            name="imagenet",
            group="Source",
            classes=1000,
            sizes={
                "train": 16_000,
                "val": 50_000,
                "heldout": 2_959,
                "imagenetv2": 10_000,
                "imagenet-sketch": 50_889,
                "imagenet-a": 7_500,
                "imagenet-r": 30_000,
            },
            description="16 images a class; its test split is ImageNet's validation set",
            targets=(
                Target("imagenetv2", "Targets", "imagenetv2"),
                Target("imagenet-sketch", "Targets", "imagenet-sketch"),
                Target("imagenet-a", "Targets", "imagenet-a", among_present=True),
                Target("imagenet-r", "Targets", "imagenet-r", among_present=True),
                Target("imagenet-a-1000way", "A and R, 1000-way", "imagenet-a"),
                Target("imagenet-r-1000way", "A and R, 1000-way", "imagenet-r"),
            ),
        ),
    ),
)
