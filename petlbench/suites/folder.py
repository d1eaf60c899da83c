"""One's own images: class folders, or a CSV file that lists them.

`--data-root` is the folder of the class folders (`data/class_folders.py`), a CSV file, or a folder
with exactly one (`data/tables.py`). The one task is called after it. What is trained on and what
is tested is what the data say, or else the rule of `data/labelled.py`, whatever the seed.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path

from petlbench.data import class_folders, labelled, tables
from petlbench.data.labelled import Labelled
from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.task import Suite, Task


def _read(root: Path | None) -> Labelled:
    if root is None:
        raise UsageError(
            "suite folder is about your own images: give --data-root DIR (with a folder for each "
            "class) or --data-root FILE.csv (with the columns path,label), or set PETLBENCH_DATA."
        )
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise UsageError(f"{root} is neither a folder nor a .csv file.")
        return tables.read(root)
    if not root.is_dir():
        raise UsageError(f"no folder or file {root}")
    listed = sorted(file for file in root.glob("*.csv") if not file.name.startswith("."))
    if len(listed) == 1:
        return tables.read(listed[0])
    return class_folders.read(root)


def _discover(root: Path | None) -> tuple[Task, ...]:
    """The one task that lies there."""
    data = _read(root)
    training, test = labelled.sides(data)
    train, val = labelled.choosing(data, training)
    sizes = {"train": train, "val": val, "trainval": training, "test": test}
    place = Path(root or ".").resolve()
    called = place.stem if place.is_file() else place.name
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", called).strip("-.") or "images"
    return (
        Task(
            name,
            "Own",
            len(data.classes),
            {part: len(members) for part, members in sizes.items()},
            f"{len(data.paths):,} images in {data.base} ({data.layout})",
            class_names=data.classes,
        ),
    )


def _open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    data = _read(root)
    if data.classes != task.class_names:
        raise UsageError(f"the classes in {data.base} are not those that task {task.name} had.")
    # every data set is a comparison of its own, whatever its folder is called
    listing = "\n".join(
        f"{path} {label}" for path, label in zip(data.paths, data.labels, strict=True)
    )
    identity = hashlib.sha256(listing.encode()).hexdigest()[:12]
    return replace(labelled.open_split(data, split), lineage=f"own images {identity}")


SUITE = Suite(
    name="folder",
    description="your own images: a folder for each class, or a CSV file with path,label",
    protocol="folder",
    backbone="vit_base_patch16_224.augreg_in21k",
    open_split=_open_split,
    discover=_discover,
    needs_data_root=True,
    report=("balanced_accuracy", "macro_f1", "auroc"),
    tasks=(),
)
