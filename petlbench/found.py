"""Modules that are found by their file names: to add one, put a file into its package's folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from typing import Any

from petlbench.errors import unknown


def names(path: Iterable[str]) -> list[str]:
    """Of a package (its `__path__`), by the alphabet; those that begin with _ are its own."""
    return sorted(m.name for m in pkgutil.iter_modules(path) if not m.name.startswith("_"))


def load(package: str, what: str, name: str, known: Sequence[str]) -> Any:
    """The module of that name, which may be typed with hyphens. UsageError unless it is `known`."""
    if name not in known:
        raise unknown(what, name, known)
    return importlib.import_module(f"{package}.{name.replace('-', '_')}")
