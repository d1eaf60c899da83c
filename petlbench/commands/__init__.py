"""The commands of the command line: one module each, found by its file name.

A command is a module with these; the command line knows no more of it. Modules stay light, so that
`--help` answers at once: what a command needs is imported inside its functions.

    docstring            its first line is the command's help: lower case, no full stop
    ORDER                its place in `petlbench --help`
    add(parser)          its arguments
    run(options)         do it; the exit code, None for 0
    INTERRUPTED          where there is something to say: what Ctrl-C leaves, in a sentence

What commands share is in `_shared.py`.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from petlbench.errors import unknown


def names() -> tuple[str, ...]:  # not a list: that is a command here
    found = (module.name for module in pkgutil.iter_modules(__path__))
    return tuple(sorted(name for name in found if name[0] != "_"))


def load(name: str) -> Any:
    """The module of that command."""
    if name not in names():
        raise unknown("command", name, names())
    return importlib.import_module(f"petlbench.commands.{name}")


def modules() -> dict[str, Any]:
    """Every command, in the order of `--help`."""
    loaded = {name: load(name) for name in names()}
    return dict(sorted(loaded.items(), key=lambda item: item[1].ORDER))
