"""Original data sets on disk -> the exact members, labels and pixels of VTAB-1K's tasks.

No TensorFlow: members follow from the order that TensorFlow Datasets gives its keys (order.py).
One file of `sources/` per original data set; a new one is found by being there.
"""

from __future__ import annotations

import functools
import importlib
from importlib import resources
from typing import cast

import petlbench.prepare.sources  # noqa: F401 - imported later, it would replace the function
from petlbench.errors import unknown
from petlbench.prepare.examples import Source


@functools.cache
def sources() -> dict[str, Source]:
    """Every module of `sources/` by its name, which is that of its folder of raw files."""
    files = resources.files("petlbench.prepare.sources").iterdir()
    names = sorted(file.name.removesuffix(".py") for file in files if file.name.endswith(".py"))
    return {
        name: cast(Source, importlib.import_module(f"petlbench.prepare.sources.{name}"))
        for name in names
        if not name.startswith("_")
    }


def source_of(task: str) -> Source:
    """The source that makes a task. Raises UsageError where none does."""
    makers = {made: source for source in sources().values() for made in source.TASKS}
    if task not in makers:
        raise unknown("task that can be prepared", task, makers)
    return makers[task]
