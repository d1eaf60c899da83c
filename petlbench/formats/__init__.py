"""The leaderboard as files: one module per format, found by its file name.

A format is a module with these. Modules stay light: they import inside their functions.

    docstring        its first line says what it is
    EXTENSION        of its files, as in ".csv"
    write(found)     the text of a file
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from petlbench.results import Results


def names() -> list[str]:
    return sorted(file.stem for file in Path(__file__).parent.glob("[!_]*.py"))


def load(name: str) -> Any:
    """The module of that format."""
    if name not in names():
        raise unknown("format", name, names())
    return importlib.import_module(f"petlbench.formats.{name}")


def of(file: Path) -> str:
    """The format that a file's name asks for; of several with its extension, the one of that name.

    Raises:
        UsageError: None has that extension.
    """
    extensions = {name: load(name).EXTENSION for name in names()}
    found = [name for name, extension in extensions.items() if extension == file.suffix]
    if not found:
        raise UsageError(f"{file}: end it in {', '.join(dict.fromkeys(extensions.values()))}.")
    return file.suffix[1:] if file.suffix[1:] in found else found[0]


def write(found: Sequence[Results], name: str) -> str:
    """The comparisons as the text of a file in that format."""
    return str(load(name).write(found))
