"""Folders of data sets, which released code spells in more than one way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from petlbench.errors import UsageError


def given(root: Path | None) -> Path:
    """The data root. Raises UsageError where there is none."""
    if root is None:
        raise UsageError(
            "this suite reads images from disk: give --data-root DIR or set PETLBENCH_DATA."
        )
    return root


def first(parent: Path | None, names: Sequence[str]) -> Path:
    """The first of these folders that is there; raises UsageError naming all of them."""
    parent = given(parent)
    for name in names:
        if (parent / name).is_dir():
            return parent / name
    others = f" (nor {', '.join(names[1:])} there)" if names[1:] else ""
    raise UsageError(f"no folder {parent / names[0]}{others}")
