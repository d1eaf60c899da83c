"""The leaderboard as files: one module per format, found by its file name.

A format is a module with these. Modules stay light: they import inside their functions.

    docstring        its first line says what it is
    EXTENSION        of its files, as in ".csv"
    write(found)     the text of a file
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from petlbench import found

if TYPE_CHECKING:
    from petlbench.results import Results


def names() -> list[str]:
    return found.names(__path__)


def load(name: str) -> Any:
    """The module of that format."""
    return found.load(__name__, "format", name, names())


def extensions() -> dict[str, str]:
    """Format -> extension; of several with one extension the first is named after it."""
    return {name: load(name).EXTENSION for name in names()}


def write(results: Sequence[Results], name: str) -> str:
    """The comparisons as the text of a file in that format."""
    return str(load(name).write(results))
