"""The embedded offline suite: a small backbone, natural samples and rendered scenes."""

from __future__ import annotations

SIZES: dict[str, int] = {"train": 300, "val": 100, "test": 500}  # images of each task, by split
