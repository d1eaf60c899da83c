"""The embedded retrieval suite: rendered scenes with captions, and a small two-tower backbone.

Offline, in the manner of remote-sensing retrieval: several captions per image, a few hundred
training images, and a backbone that was pre-trained on pictures and captions of another kind.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np
from PIL import Image

from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.mini import captioned
from petlbench.mini.captioned import CAPTIONS, SIZES
from petlbench.task import Suite, Task

PARTS = {name: (name,) for name in SIZES} | {"trainval": ("train", "val")}


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    if split not in PARTS:
        raise UsageError(f"suite mini-retrieval has no split {split!r}; it has {', '.join(PARTS)}.")
    items = [(task.name, part, index) for part in PARTS[split] for index in range(SIZES[part])]
    texts = tuple(text for item in items for text in captioned.captions(*item))
    told = "\n".join((task.name, split, _renderer(), *texts))
    members = hashlib.sha256(told.encode()).hexdigest()
    return Split(
        name=split,
        labels=np.arange(len(items), dtype=np.int64),
        members=members,
        version=lambda: members,
        read=lambda index: Image.fromarray(captioned.render(*items[index])),
        describe={"layout": "rendered scenes", "size": 48, "captions": CAPTIONS},
        texts=texts,
        owners=np.arange(len(items), dtype=np.int64).repeat(CAPTIONS),
    )


@functools.cache
def _renderer() -> str:
    """SHA-256 of the first scenes of every task: changes when the renderer draws differently."""
    digest = hashlib.sha256()
    for task in captioned.TASKS:
        for index in range(4):
            digest.update(captioned.render(task, "train", index).tobytes())
    return digest.hexdigest()


def _task(name: str, group: str, description: str) -> Task:
    return Task(
        name=name,
        group=group,
        classes=0,
        sizes=SIZES | {"trainval": SIZES["train"] + SIZES["val"]},
        description=description,
        problem="retrieval",
        metric="mean_recall",
    )


SUITE = Suite(
    name="mini-retrieval",
    description="2 small retrieval tasks inside the package: rendered scenes with captions",
    protocol="mini-retrieval",
    backbone="clip:mini",
    open_split=_open_split,
    ranking="mean of tasks",
    report=("i2t_r1", "i2t_r5", "i2t_r10", "t2i_r1", "t2i_r5", "t2i_r10"),
    methods=("zero_shot", "linear", "bitfit", "adapter", "lora", "full"),
    tasks=(
        _task("scene_captions", "Objects", "two objects that differ in colour, shape and size"),
        _task("relation_captions", "Relations", "the same two objects, arranged in four ways"),
    ),
)
