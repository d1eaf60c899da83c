"""What a source of images declares and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from PIL import Image

from petlbench.errors import RunError, UsageError

if TYPE_CHECKING:
    import h5py
    import numpy as np


@dataclass(frozen=True)
class Example:
    """One image of an original data set."""

    key: str
    """What TFDS calls it; the md5 of this orders the split."""
    labels: Mapping[str, int]
    """Task -> label, counted from 0."""
    read: Callable[[], Image.Image]
    """The image, RGB or L, undistorted. Raises RunError naming the file that cannot be decoded."""
    origin: str
    """File, and place in it, for errors."""


@dataclass(frozen=True)
class Download:
    """A file of a data set, on the network."""

    url: str
    file: str
    """Name to keep it under, in the raw folder of its source."""
    checksum: str | None
    """`sha256:...` or `md5:...`; without one it is told to people and never downloaded."""
    bytes: int | None
    """Size, where it is known."""


class Source(Protocol):
    """What every module of `sources/` has."""

    TASKS: tuple[str, ...]
    """Tasks of VTAB-1K that are made from it."""
    TITLE: str
    LICENCE: str
    HOMEPAGE: str
    DOWNLOAD: tuple[Download, ...]
    NEEDS: tuple[str, ...]
    """What must lie where: paths below `RAW/<name>/`, which is where archives are extracted."""

    def splits(self, raw: Path) -> dict[str, list[Example]]:
        """Members of train800, val200 and test, in order; `raw` is `RAW/<name>`.

        Raises UsageError naming what is missing and where to get it, or what is corrupt.
        """


def present(path: Path, needs: tuple[str, ...], homepage: str) -> Path:
    """The file or folder; UsageError with what is needed and where it comes from, if missing."""
    if not path.exists():
        needed = "\n  ".join(needs)
        raise UsageError(f"no {path}. Get {homepage} and put there:\n  {needed}")
    return path


def of_file(
    key: str,
    labels: Mapping[str, int],
    file: Path,
    process: Callable[[Image.Image], Image.Image] = lambda image: image.convert("RGB"),
) -> Example:
    """An image file. Raises UsageError if it is not there; its content is looked at by `read`."""
    if not file.is_file():
        raise UsageError(f"no image {file}: extract the whole data set.")
    return Example(key, labels, lambda: decode(file, process), str(file))


def by_class(
    base: Path, classes: Sequence[str], needs: tuple[str, ...], homepage: str
) -> dict[str, tuple[int, Path]]:
    """`<class>/<class>_*.jpg` below `base`: TFDS key (class, underscore, name) -> label, file."""
    return {
        f"{name}_{file.name}": (label, file)
        for label, name in enumerate(classes)
        for file in present(base / name, needs, homepage).glob(f"{name}_*.jpg")
    }


def decode(file: Path, process: Callable[[Image.Image], Image.Image]) -> Image.Image:
    try:
        with Image.open(file) as image:
            return process(image)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise RunError(f"cannot decode image {file}: {error}") from error


def lines(file: Path) -> list[str]:
    """The lines of a text file without what surrounds them, empty ones left out."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read as text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def open_hdf5(file: Path) -> h5py.File:
    """Raises UsageError without h5py, or if it is no HDF5 file."""
    try:
        import h5py
    except ImportError as error:
        raise UsageError(
            f"{file} is read with h5py, which is not installed: pip install 'petlbench[data]'"
        ) from error
    try:
        return h5py.File(file, "r")
    except OSError as error:
        raise UsageError(f"{file} is not a complete HDF5 file: {error}") from error


def load_mat(file: Path, *names: str) -> tuple[np.ndarray[Any, Any], ...]:
    """Arrays of a MATLAB file (version 5). Raises UsageError if it is corrupt or has others."""
    from scipy.io import loadmat

    try:
        content = loadmat(file, variable_names=list(names))
    except Exception as error:  # corrupt bytes make scipy raise anything, IndexError included
        raise UsageError(f"{file} is not a complete MATLAB file: {error}") from error
    for name in names:
        if name not in content:
            raise UsageError(f"{file} has no array {name!r}; get the original file again.")
    return tuple(content[name] for name in names)
