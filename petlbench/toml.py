"""TOML files that people write: read, or refused naming the file and the place in it."""

from __future__ import annotations

import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from petlbench.errors import UsageError


def read(file: Path | Traversable, what: str) -> dict[str, Any]:
    """The content of a file; `what` names it in messages: "preset ./lora.mine.toml".

    Raises UsageError: it cannot be read, is not valid TOML, or has a number of more than 64 bits.
    """
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8").removeprefix("\ufeff"))
        _require_64_bits(values)
    except OSError as error:
        raise UsageError(f"cannot read {what}: {error.strerror}.") from error
    except RecursionError as error:
        raise UsageError(f"{what} is not valid TOML: it is nested too deeply.") from error
    except ValueError as error:  # of the syntax, the encoding or a number
        raise UsageError(f"{what} is not valid TOML: {error}") from error
    return values


def _require_64_bits(value: Any) -> None:
    """TOML asks for it; Python would read a number that it then refuses to print."""
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise ValueError("a whole number has more than 64 bits")
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            _require_64_bits(inner)
