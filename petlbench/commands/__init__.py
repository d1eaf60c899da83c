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

from typing import Any

from petlbench import found


def names() -> tuple[str, ...]:  # not a list: that is a command here
    return tuple(found.names(__path__))


def load(name: str) -> Any:
    """The module of that command."""
    return found.load(__name__, "command", name, names())


def modules() -> dict[str, Any]:
    """Every command, in the order of `--help`."""
    loaded = {name: load(name) for name in names()}
    return dict(sorted(loaded.items(), key=lambda item: item[1].ORDER))
