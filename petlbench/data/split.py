"""A split: labels, and images that are decoded on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


@dataclass(frozen=True)
class Split:
    """One split of one task, opened but not decoded.

    `members` is the SHA-256 of what the split consists of (file names and labels), which enters
    a run's identity; `version()` is a cheap key that changes whenever a source file changes,
    under which decoded images are cached.
    """

    name: str
    labels: NDArray[np.int64]
    members: str
    version: Callable[[], str]
    read: Callable[[int], Image]
    """Image i, RGB, undistorted; called from several threads at the same time.

    Raises RunError naming the file that cannot be decoded.
    """
    describe: dict[str, Any]
    """Where the images come from, for the record."""
    files: Sequence[Path] = ()
    """What must not be opened before its time, where the split is a test split."""
    texts: Sequence[str] = ()
    """Captions, of retrieval; `labels` are then the numbers of the images."""
    owners: NDArray[np.int64] | None = None
    """(texts,) the image that each caption belongs to."""
    groups: Sequence[str] = ()
    """What image i shares with others that must lie on the same side, such as its patient."""
    lineage: str = ""
    """How the files came about, as far as it changes their pixels: "lossless", "noah-jpeg"."""
    manifest: str = ""
    """SHA-256 of the manifest that lies beside a prepared task."""

    def __len__(self) -> int:
        return len(self.labels)
