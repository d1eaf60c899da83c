"""The de-facto VTAB-1K layout: `<root>/<task>/<split>.txt`, one `relative/path label` per line."""

from __future__ import annotations

import functools
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from petlbench.data import folders, manifest
from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_LABEL = re.compile(r"-?[0-9]{1,9}")
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
    if isinstance(files, Under):
        return files.lineage
    return Under(base, [str(file).removeprefix(f"{base}{os.sep}") for file in files]).lineage


def read(file: Path, base: Path, split: str, classes: int, expected: int = 0) -> Split:
    """The images of one list file; its paths are relative to `base`."""
    try:
        found = file.stat()
        stamp = found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino
    except OSError:
        stamp = None
    opened = _read(file, base, split, classes, stamp)
    if expected and len(opened) != expected:
        raise UsageError(f"{file} lists {len(opened)} images; {expected} are expected.")
    return opened


@functools.lru_cache(maxsize=8)
def _read(file: Path, base: Path, split: str, classes: int, stamp: Any) -> Split:
    """Remembered, since every seed of a plan asks for the same few lists in turn."""
    paths, labels = parse(file, base, classes)
    listing = "\n".join(f"{path} {label}" for path, label in zip(paths, labels, strict=True))
    members = hashlib.sha256(listing.encode()).hexdigest()
    return of_files(split, Under(base, paths), labels, members)


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
    allowed = {str(label) for label in range(classes)}
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.strip()
        if not line:
            continue
        path, _, label = line.rpartition(" ")
        odd = ".." in path or ":" in path or "\0" in path or not path[:1].isalnum()
        if (odd or label not in allowed) and (wrong := _wrong(path, label, classes, base)):
            raise UsageError(f"{file}, line {number}: {line[:80]!r}{wrong}")
        paths.append(path)
        labels.append(int(label))
    if not paths:
        raise UsageError(f"{file} lists no images.")
    return paths, labels


def _wrong(path: str, label: str, classes: int, base: Path) -> str:
    """What is wrong with a line; empty if nothing is."""
    if not path or not _LABEL.fullmatch(label):
        return " is not 'relative/path label'."
    if not 0 <= int(label) < classes:
        return f": the label must be in 0..{classes - 1}."
    if os.path.isabs(path) or ".." in Path(path).parts:
        return f": the path must stay inside {base}."
    if "\0" in path:
        return ": a path cannot hold the character NUL."
    return ""


class Under(Sequence[Path]):
    """Files below a folder, each made when it is asked for: a plan needs none of 400,000."""

    def __init__(self, base: Path, names: Sequence[str]) -> None:
        self.base, self.names = base, names

    @functools.cached_property
    def lineage(self) -> str:
        """See the function of that name."""
        return "noah-jpeg" if all(map(_NOAH.fullmatch, self.names)) else "unknown"

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Under(self.base, self.names[index])
        return self.base / self.names[index]

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # as of a list


def _names(files: Sequence[Path]) -> Iterable[str]:
    return files.names if isinstance(files, Under) else map(str, files)


def of_files(name: str, files: Sequence[Path], labels: Sequence[int], members: str) -> Split:
    """A split of image files."""
    return Split(
        name=name,
        labels=np.array(labels, dtype=np.int64),
        members=members,
        version=lambda: _version(files),
        read=lambda index: _decode(files[index]),
        describe={"layout": "lists", "formats": _formats(_names(files))},
        files=files,
    )


def _formats(names: Iterable[str]) -> list[str]:
    tails = {name[name.rfind(".") :] for name in names}  # few, and so quickly split
    return sorted({os.path.splitext(f"_{tail}")[1].lower() for tail in tails})


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
