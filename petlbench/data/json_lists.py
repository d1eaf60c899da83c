"""VPT's lists of images: `train.json`, `val.json` and `test.json`, one object each.

`{"relative/path.jpg": class id, ...}`, as the repository KMnP/vpt reads them
(src/data/datasets/json_dataset.py). Ids are any numbers or texts; sorted, they become the labels
0, 1, ... VPT numbers the ids of each file by themselves; here those of the training list count
for all of them, which is the same wherever every list has every class.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from petlbench.data import lists
from petlbench.data.split import Split
from petlbench.errors import UsageError

ClassId = int | str

# The lists that no image of a list may also stand in, as far as they are there.
EARLIER = {"train": (), "val": ("train",), "test": ("train", "val")}


def open_split(folder: Path, images: Path, split: str, parts: Sequence[str], classes: int) -> Split:
    """The images of these lists of `folder`, one list after the other; paths are below `images`.

    Raises UsageError naming file, path and what is wrong: a class that training lacks, an image
    that stands in two lists.
    """
    training = read(folder / "train.json")
    ids = sorted(set(training.values()), key=lambda each: (isinstance(each, str), each))
    if len(ids) != classes:
        raise UsageError(f"{folder / 'train.json'} has {len(ids)} classes; {classes} are expected.")
    numbers = {each: number for number, each in enumerate(ids)}
    items: dict[str, int] = {}
    for part in parts:
        file = folder / f"{part}.json"
        listed = training if part == "train" else read(file)
        for path, each in listed.items():
            if each not in numbers:
                raise UsageError(
                    f"{file}, {path[:80]!r}: no image of train.json has the class {each!r}."
                )
        for other in (folder / f"{name}.json" for name in EARLIER[part]):
            both = listed.keys() & read(other).keys() if other.is_file() else set()
            if both:
                raise UsageError(f"{file}: {min(both)[:80]!r} stands in {other} too.")
        items |= {path: numbers[each] for path, each in listed.items()}
    listing = "\n".join(f"{path} {label}" for path, label in items.items())
    files = [images / path for path in items]
    members = hashlib.sha256(listing.encode()).hexdigest()
    return lists.of_files(split, files, list(items.values()), members)


def read(file: Path) -> dict[str, ClassId]:
    """Path -> class id of one file, in its order.

    Raises UsageError naming the file and its line or entry: not JSON, not one object, the same
    path twice, ids of two types, a path that leaves the folder.
    """
    if not file.is_file():
        raise UsageError(f"no list file {file}")

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        path, times = Counter(path for path, _ in pairs).most_common(1)[0] if pairs else ("", 0)
        if times > 1:
            raise UsageError(f"{file}: {path[:80]!r} stands there {times} times.")
        return dict(pairs)

    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=unique)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{file} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict) or not content:
        raise UsageError(f'{file} must be one object {{"relative/path": class id, ...}}.')
    kinds = {type(each) for each in content.values()}
    for path, each in content.items():
        where = f"{file}, {path[:80]!r}"
        if type(each) not in (int, str):
            raise UsageError(f"{where}: the class id {each!r} must be a whole number or a text.")
        if len(kinds) > 1:
            raise UsageError(f"{where}: some class ids are numbers and others are texts.")
        if not path or Path(path).is_absolute() or ".." in Path(path).parts:
            raise UsageError(f"{where}: the path must be relative and stay inside its folder.")
        if re.search("[\0\ud800-\udfff]", path):
            raise UsageError(f"{where}: no file can be called that.")
    return dict(content)
