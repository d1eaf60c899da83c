"""A folder for each class: `<dir>/<class>/**/*.png`, or the same below `train` and `test`.

The layout of torchvision's ImageFolder. A class is what lies anywhere below its folder. Classes
are sorted by name, by number if all names are numbers. Where `<dir>/train` and `<dir>/test` are
there (and maybe `<dir>/val`), they are the split; other folders beside them are not looked at.
What starts with a dot or with two underscores (`__MACOSX`) is hidden.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

from petlbench.data.labelled import GIVEN, Labelled
from petlbench.errors import UsageError

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".ppm")
# Folders that are sides of a split by another name; taken for classes they would give nonsense.
SIDES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
SIDES |= {name: name for name in GIVEN}


def read(base: Path, ignore: str = "") -> Labelled:
    """The images of a folder of classes; files whose name matches the pattern `ignore` are left.

    Raises UsageError naming the folder and what is wrong with it.
    """
    sides = _sides(base)
    found = {side: _classes(base / side) for side in sides}
    names = in_order({folder.name for folders in found.values() for folder in folders})
    if len(names) == 1:
        raise UsageError(
            f"{base} has only one class folder, {names[0]}; two are needed to compare."
        )
    paths, labels, splits = [], [], []
    for side, folders in found.items():
        for folder in folders:
            inside = _images(folder, ignore)
            paths += [file.relative_to(base).as_posix() for file in inside]
            labels += [names.index(folder.name)] * len(inside)
            splits += [side] * len(inside)
    return Labelled(
        base,
        tuple(names),
        paths,
        labels,
        layout="class folders",
        splits=splits if sides != [""] else (),
    )


def _sides(base: Path) -> list[str]:
    """The folders of a split in `base`, or "" where `base` itself has the classes."""
    names = {folder.name for folder in _folders(base)}
    if {"train", "test"} <= names:
        for name in sorted(names - set(GIVEN)):
            if name.lower() in SIDES:
                raise UsageError(
                    f"{base / name} lies beside train and test: rename it to "
                    f"{SIDES[name.lower()]}, or move it away."
                )
        return [side for side in GIVEN if side in names]
    if names and all(name.lower() in SIDES for name in names):
        raise UsageError(
            f"{base} has the folders {', '.join(sorted(names))}, which are not classes: call them "
            "train and test (and val), or put the folders of the classes into one folder."
        )
    return [""]


def _classes(base: Path) -> list[Path]:
    folders = _folders(base)
    if not folders:
        loose = " Images lie in it directly." if _is_image(_visible(base)) else ""
        raise UsageError(
            f"{base} has no class folders.{loose} Put the images of each class into a folder of "
            "its own, or list them in a CSV file with the columns path,label."
        )
    return folders


def _images(folder: Path, ignore: str) -> list[Path]:
    """Every image below the folder, sorted."""

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename} cannot be read: {error.strerror}") from error

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not _hidden(name)]
        found += [Path(parent, name) for name in files if not fnmatchcase(name, ignore)]
    images = sorted(file for file in found if _is_image([file]) and not _hidden(file.name))
    if not images:
        raise UsageError(
            f"no images in the class folder {folder} ({', '.join(IMAGES)}): fill it or remove it."
        )
    return images


def in_order(names: Iterable[str]) -> list[str]:
    """Names of classes in the order of their labels: by number if all are, else by name."""
    names = sorted(names)
    if all(name.isascii() and name.isdigit() for name in names):
        names.sort(key=int)
    return names


def _folders(base: Path) -> list[Path]:
    return [path for path in _visible(base) if path.is_dir()]


def _visible(base: Path) -> list[Path]:
    try:
        return sorted(path for path in base.iterdir() if not _hidden(path.name))
    except OSError as error:
        raise UsageError(f"{base} cannot be read as a folder: {error.strerror}") from error


def _is_image(paths: Iterable[Path]) -> bool:
    return any(path.suffix.lower() in IMAGES for path in paths)


def _hidden(name: str) -> bool:
    return name.startswith((".", "__"))
