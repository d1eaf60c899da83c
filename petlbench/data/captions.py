"""Images with captions, in the three on-disk formats in which retrieval data sets are released.

A task is a folder with the caption files of one format, and the images:

    precomp    train_caps.txt, train_filename.txt, test_caps.txt, test_filename.txt (and val_*): a
               caption a line, five for each image; names are one a line for each image, or each
               five times, once for each caption. Released with AMFMN (github.com/xiaoyuan1996/
               AMFMN) and PE-RSITR (github.com/ZhanYang-nwpu/PE-RSITR).
    karpathy   dataset.json or dataset_*.json: {"images": [{"filename", "split", "sentences":
               [{"raw"}]}]}, with a "filepath" in front of the file name where there is one. The
               `split` "restval" is training data, as the field uses it for COCO. RSICD, UCM- and
               Sydney-Captions, Flickr30k and COCO.
    harma      TASK_train.json: [{"image", "caption", "image_id"}], one for each caption;
               TASK_val.json (may be absent) and TASK_test.json: [{"image", "caption": [...]}].
               Released with HarMA (github.com/seekerhuang/HarMA).

The images lie in the folder itself or in images/, imgs/, TASK_images/ or TASK-images/, by the
names in the caption files or without the folders in front of them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from petlbench.data import folders, lists
from petlbench.data.split import Split
from petlbench.errors import UsageError

# What a split is made of. Precomp files have "val" inside "train", so without val files both mean
# the same images: all that are not tested.
SPLITS = {"train": ("train",), "val": ("val",), "trainval": ("train", "val"), "test": ("test",)}
PARTS = ("train", "val", "test")
PER_IMAGE = 5  # captions, in precomp files


@dataclass(frozen=True)
class Captioned:
    """An image file's name, as listed, its captions, and where that is written."""

    name: str
    captions: tuple[str, ...]
    where: str


Parts = dict[str, list[Captioned]]


def open_split(root: Path | None, folder: str, split: str) -> Split:
    """The images of a split with `texts` and `owners`; `labels` are the numbers of the images.

    Images without any caption are left out of training, and `describe` counts them. Raises
    UsageError for what is missing or wrong, naming file and line (or entry), and for an image
    that is in two parts of the data.
    """
    root = folders.given(root)
    if split not in SPLITS:
        raise UsageError(f"{folder} has no split {split!r}; it has {', '.join(SPLITS)}.")
    base = root / folder
    layout, parts = _read(base)
    _require_distinct(parts)
    needed = SPLITS[split]
    if needed[0] not in parts:
        raise UsageError(
            f"the captions in {base} ({layout}) have no {needed[0]} images, only "
            f"{', '.join(parts)}. Use caption files of a release that has them."
        )
    present = [part for part in needed if part in parts]
    listed = [item for part in present for item in parts[part]]
    items = [item for item in listed if item.captions]
    if not items:
        raise UsageError(f"the {split} images in {base} have no captions.")
    files = _files(base, split, [item.name for item in items])
    content = json.dumps([[item.name, *item.captions] for item in items])
    members = hashlib.sha256(content.encode()).hexdigest()
    opened = lists.of_files(split, files, range(len(files)), members)
    texts = [caption for item in items for caption in item.captions]
    owners = np.repeat(np.arange(len(items)), [len(item.captions) for item in items])
    described = opened.describe | {
        "layout": f"captions, {layout}",
        "parts": present,
        "captions": len(texts),
        "left_out_without_captions": len(listed) - len(items),
    }
    return replace(opened, describe=described, texts=texts, owners=owners.astype(np.int64))


# -- formats --------------------------------------------------------------------------------------


def _read(base: Path) -> tuple[str, Parts]:
    """The format whose files are there, and what they say."""
    if not base.is_dir():
        raise UsageError(f"no folder {base}")
    precomp = [f"{part}_{kind}.txt" for part in PARTS for kind in ("caps", "filename")]
    harma = [f"{base.name}_{part}.json" for part in PARTS]
    karpathy = sorted(file.name for file in base.glob("dataset*.json"))
    found = {
        "precomp": [name for name in precomp if (base / name).is_file()],
        "karpathy": karpathy,
        "harma": [name for name in harma if (base / name).is_file()],
    }
    layouts = [layout for layout, names in found.items() if names]
    if not layouts:
        raise UsageError(
            f"no captions in {base}. Looked for {', '.join(precomp)} (precomp); dataset*.json "
            f"(karpathy); {', '.join(harma)} (harma)."
        )
    if len(layouts) > 1 or len(karpathy) > 1:
        several = ", ".join(name for layout in layouts for name in found[layout])
        raise UsageError(f"captions in {base} are there more than once ({several}); keep one set.")
    names = found[layouts[0]]
    if layouts == ["precomp"]:
        there = [part for part in PARTS if any(name.startswith(part) for name in names)]
        parts = {part: _precomp(base, part) for part in there}
    elif layouts == ["harma"]:
        there = [part for part in PARTS if f"{base.name}_{part}.json" in names]
        parts = {part: _harma(base, part) for part in there}
    else:
        parts = _karpathy(base / names[0])
    return layouts[0], parts


def _precomp(base: Path, part: str) -> list[Captioned]:
    file = base / f"{part}_filename.txt"
    captions, names = _lines(base / f"{part}_caps.txt"), _lines(file)
    if len(captions) not in (len(names), PER_IMAGE * len(names)) or len(captions) % PER_IMAGE:
        raise UsageError(
            f"{base / f'{part}_caps.txt'} has {len(captions)} captions and {file.name} "
            f"{len(names)} names; {PER_IMAGE} captions for each image are needed, and a name for "
            "each image or for each caption."
        )
    repeated = PER_IMAGE if len(captions) == len(names) else 1
    items = []
    for index in range(len(captions) // PER_IMAGE):
        name = names[index * repeated]
        where = f"{file}, line {index * repeated + 1}"
        if set(names[index * repeated : (index + 1) * repeated]) != {name}:
            raise UsageError(f"{where}: {name!r} must be there {PER_IMAGE} times in a row.")
        first = index * PER_IMAGE
        own = captions[first : first + PER_IMAGE]
        if any(own) or part == "test":  # RSITMD's release has four training images without any
            for number, caption in enumerate(own, start=first + 1):
                _require_caption(caption, f"{base / f'{part}_caps.txt'}, line {number}")
        items.append(Captioned(_name(name, where), tuple(filter(None, own)), where))
    return items


def _karpathy(file: Path) -> Parts:
    content = _json(file)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list) or not images:
        raise UsageError(f'{file} is not of the form {{"images": [...]}}.')
    parts: Parts = {}
    numbers: dict[Any, str] = {}
    for index, image in enumerate(images):
        where = f"{file}, images[{index}]"
        part = _text(image, "split", where)
        if part not in (*PARTS, "restval"):
            raise UsageError(f"{where}: split {part!r} is none of train, restval, val, test.")
        _require_one(numbers, "imgid", image, where, where)
        name = _text(image, "filename", where)
        if "filepath" in image:
            name = f"{_text(image, 'filepath', where)}/{name}"
        sentences = _list(image, "sentences", where)
        captions = tuple(
            _require_caption(_text(one, "raw", inner), inner)
            for number, one in enumerate(sentences)
            for inner in [f"{where}.sentences[{number}]"]
        )
        item = Captioned(_name(name, where), captions, where)
        parts.setdefault("train" if part == "restval" else part, []).append(item)
    return parts


def _harma(base: Path, part: str) -> list[Captioned]:
    file = base / f"{base.name}_{part}.json"
    entries = _json(file)
    if not isinstance(entries, list) or not entries:
        raise UsageError(f'{file} is not of the form [{{"image": ..., "caption": ...}}, ...].')
    items: dict[str, Captioned] = {}
    numbers: dict[Any, str] = {}
    for index, entry in enumerate(entries):
        where = f"{file}, [{index}]"
        name = _name(_text(entry, "image", where), where)
        if part != "train":
            captions = tuple(
                _require_caption(caption, f"{where}.caption[{number}]")
                for number, caption in enumerate(_list(entry, "caption", where))
            )
            if name in items:
                raise UsageError(f"{where}: {name!r} is there before, in {items[name].where}.")
            items[name] = Captioned(name, captions, where)
            continue
        _require_one(numbers, "image_id", entry, name, where)
        caption = _require_caption(_text(entry, "caption", where), where)
        known = items.setdefault(name, Captioned(name, (), where))
        items[name] = replace(known, captions=(*known.captions, caption))
    return list(items.values())


# -- images ---------------------------------------------------------------------------------------


def _files(base: Path, split: str, names: list[str]) -> list[Path]:
    """The image files: of the first folder that has them all."""
    task = base.name
    inside = ("images", "imgs", f"{task.upper()}_images", f"{task}_images", f"{task}-images")
    folders = [base, *(base / name for name in inside if (base / name).is_dir())]
    plain = [PurePosixPath(name).name for name in names]
    ways = [names, plain] if len(set(plain)) == len(names) else [names]
    fewest: tuple[int, Path, list[str]] | None = None
    for folder in folders:
        for way in ways:
            files = [folder / name for name in way]
            missing = [file.name for file in files if not os.path.isfile(file)]
            if not missing:
                return files
            if fewest is None or len(missing) < fewest[0]:
                fewest = len(missing), folder, missing
    assert fewest is not None
    count, folder, missing = fewest
    some = ", ".join(missing[:3]) + (", ..." if count > 3 else "")
    raise UsageError(
        f"{count} of {len(names)} images of {task}'s {split} are missing in {folder}: {some} "
        f"(looked for in {base} and, inside it, {', '.join(dict.fromkeys(inside))})."
    )


def _require_distinct(parts: Parts) -> None:
    """No image twice, in one part or in two; "train/", "val/" and "test/" in front do not count."""
    seen: dict[str, tuple[str, str]] = {}
    for part, items in parts.items():
        for item in items:
            name = re.sub(r"^(train|val|test)/", "", item.name)
            first, where = seen.setdefault(name, (part, item.where))
            if where != item.where:
                both = f"in {first} and in {part}" if first != part else f"twice in {part}"
                raise UsageError(f"{item.where}: image {name!r} is {both}, first in {where}.")


# -- fields ---------------------------------------------------------------------------------------


def _decoded(file: Path) -> str:
    if not file.is_file():
        raise UsageError(f"no file {file}")
    try:
        content = file.read_bytes()
        return content.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise UsageError(
            f"{file}, line {line} is not UTF-8 ({error.reason}); convert the file, for example "
            f"from Latin-1: iconv -f latin1 -t utf8 {file.name}"
        ) from error


def _lines(file: Path) -> list[str]:
    """Stripped lines; an empty one is a line too."""
    lines = _decoded(file).removesuffix("\n").split("\n")
    if not any(lines):
        raise UsageError(f"{file} is empty.")
    return [line.strip() for line in lines]


def _json(file: Path) -> Any:
    try:
        return json.loads(_decoded(file))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{file}, line {error.lineno}, column {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise UsageError(f"{file} is nested too deeply.") from error
    except ValueError as error:  # of a number with thousands of digits
        raise UsageError(f"{file} cannot be read: {error}") from error


def _text(entry: Any, field: str, where: str) -> str:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, str):
        raise UsageError(f"{where} needs a text {field!r}; it has {value!r:.80}.")
    return value


def _list(entry: Any, field: str, where: str) -> list[Any]:
    value = entry.get(field) if isinstance(entry, dict) else None
    if not isinstance(value, list) or not value:
        raise UsageError(f"{where} needs a list {field!r} that is not empty; it has {value!r:.80}.")
    return value


def _require_caption(caption: Any, where: str) -> str:
    if not isinstance(caption, str):
        raise UsageError(f"{where}: a caption must be a text, not {caption!r:.80}.")
    if not caption.strip():
        raise UsageError(f"{where}: the caption is empty.")
    if re.search("[\ud800-\udfff]", caption):
        raise UsageError(f"{where}: {caption!r:.80} has half a character; write the file as UTF-8.")
    return caption.strip()


def _name(name: str, where: str) -> str:
    path = PurePosixPath(name)
    unsafe = path.is_absolute() or ".." in path.parts
    if not path.name or unsafe or re.search(r"[\\\0\ud800-\udfff]", name):
        raise UsageError(f"{where}: {name!r:.80} is not a relative path of an image file.")
    return str(path)


def _require_one(known: dict[Any, str], field: str, entry: Any, owner: str, where: str) -> None:
    """A number belongs to one image, where images are numbered."""
    value = entry.get(field) if isinstance(entry, dict) else None
    if value is not None and known.setdefault(str(value), owner) != owner:
        raise UsageError(f"{where}: {field} {value!r} is that of {known[str(value)]} already.")
