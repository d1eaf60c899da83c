"""The de-facto VTAB-1K layout: `<root>/<task>/<split>.txt`, one `relative/path label` per line."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from petlbench.data import folders, manifest
from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_NOAH = re.compile(r"images/(train800|val200|train800val200|test)/[0-9]{6}\.jpg")


def open_split(
    root: Path | None, folder: str, split: str, classes: int, expected: int = 0
) -> Split:
    """Read one list file; images are opened later. `expected` images, 0 for any number.

    Raises UsageError naming the missing folder or file, or the line and what is wrong with it.
    """
    base = folders.given(root) / folder
    if not base.is_dir():
        raise UsageError(f"no folder {base}")
    opened = read(base / f"{split}.txt", base, split, classes, expected)
    beside = manifest.read(base)
    if beside is None:
        return replace(opened, lineage=lineage(base, opened.files))
    return replace(opened, lineage=beside[0].lineage, manifest=beside[1])


def lineage(base: Path, files: Sequence[Path]) -> str:
    """How files without a manifest came about, as far as their names tell.

    "noah-jpeg": all are `images/<split>/<six digits>.jpg`, as NOAH's data/vtab-source/get_vtab1k.py
    writes them (JPEG at Pillow's defaults, whatever the source was); "unknown" otherwise.
    """
    begin = len(str(base)) + 1
    names = (str(file)[begin:] for file in files)
    return "noah-jpeg" if all(map(_NOAH.fullmatch, names)) else "unknown"


def read(file: Path, base: Path, split: str, classes: int, expected: int = 0) -> Split:
    """The images of one list file; its paths are relative to `base`."""
    paths, labels = parse(file, base, classes)
    if expected and len(paths) != expected:
        raise UsageError(f"{file} lists {len(paths)} images; {expected} are expected.")
    files = [base / path for path in paths]
    listing = "\n".join(f"{path} {label}" for path, label in zip(paths, labels, strict=True))
    return of_files(split, files, labels, hashlib.sha256(listing.encode()).hexdigest())


def parse(file: Path, base: Path, classes: int) -> tuple[list[str], list[int]]:
    """Paths and labels of a list: `relative/path label` a line, cut at the last space.

    Raises UsageError naming file, line and what is wrong with it; `base` is what a path must stay
    inside.
    """
    if not file.is_file():
        raise UsageError(f"no list file {file}")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as a list of images: {error}") from error
    paths, labels = [], []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        where = f"{file}, line {number}: {line.strip()[:80]!r}"
        if not path or not re.fullmatch(r"-?[0-9]{1,9}", label):
            raise UsageError(f"{where} is not 'relative/path label'.")
        if not 0 <= int(label) < classes:
            raise UsageError(f"{where}: the label must be in 0..{classes - 1}.")
        if os.path.isabs(path) or (".." in path and ".." in Path(path).parts):
            raise UsageError(f"{where}: the path must stay inside {base}.")
        if "\0" in path:
            raise UsageError(f"{where}: a path cannot hold the character NUL.")
        paths.append(path)
        labels.append(int(label))
    if not paths:
        raise UsageError(f"{file} lists no images.")
    return paths, labels


def of_files(name: str, files: Sequence[Path], labels: Sequence[int], members: str) -> Split:
    """A split of image files."""
    return Split(
        name=name,
        labels=np.array(labels, dtype=np.int64),
        members=members,
        version=lambda: _version(files),
        read=lambda index: _decode(files[index]),
        describe={"layout": "lists", "formats": sorted({f.suffix.lower() for f in files})},
        files=files,
    )


def _version(files: Sequence[Path]) -> str:
    """Changes when any file is replaced or rewritten, even with its old times put back (ctime)."""
    digest = hashlib.sha256()
    for file in files:
        try:
            stat = file.stat()
        except OSError as error:
            raise RunError(f"cannot read image {file}: {error.strerror}") from error
        digest.update(f"{file}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\n".encode())
    return digest.hexdigest()


def _decode(file: Path) -> Image:
    from PIL import Image

    try:
        with Image.open(file) as image:
            return _rgb(image)
    except RunError:  # it must not be opened yet (vault.py)
        raise
    except Image.DecompressionBombError as error:
        raise RunError(f"refusing image {file}: {error}") from error
    except Exception as error:  # of corrupt bytes Pillow's plugins raise anything
        raise RunError(f"cannot decode image {file}: {error}") from error


def _rgb(image: Image) -> Image:
    """The first frame in RGB, 8 bits a channel. Pillow would clip grey values of 16 bits at 255."""
    from PIL import Image

    if image.mode.startswith("I;16"):
        high = np.asarray(image).astype(np.uint16) >> 8  # as Pillow takes 16-bit RGB
        return Image.fromarray(high.astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError("its values have 32 bits and no known range; store it with 8 or 16 bits")
    return image.convert("RGB")
