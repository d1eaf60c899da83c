"""Caltech 101: cannot be derived, only taken from a prepared copy."""

from __future__ import annotations

from pathlib import Path

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example

TASKS = ("caltech101",)
TITLE = "Caltech 101"
LICENCE = "CC BY 4.0 (not verified)"
HOMEPAGE = "https://data.caltech.edu/records/mzrjq-6wc02"
DOWNLOAD: tuple[Download, ...] = ()  # the archive would not help
NEEDS = ("nothing: take the folder caltech101 of a prepared copy of VTAB-1K",)


def splits(raw: Path) -> dict[str, list[Example]]:
    raise UsageError(
        "caltech101 cannot be made from the original images: TFDS drew its 30 training images per "
        "class (numpy, seed 1234) from a directory listing, in the order of that file system, "
        "which nobody else has. Take the folder caltech101 of a prepared copy of VTAB-1K: "
        "petlbench data prepare vtab-1k --tasks caltech101 --from COPY"
    )
