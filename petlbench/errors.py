"""Errors meant for people: what was wrong, where, and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """Bad input. The message is shown as it is, without a traceback; the exit code is 2."""


class RunError(Exception):
    """A run that cannot give a trustworthy number. Recorded as failed; the sweep goes on."""


def unknown(kind: str, name: str, known: Iterable[str], hint: str = "") -> UsageError:
    """The error for a name that does not exist, with the nearest ones that do."""
    choices = sorted(known)
    near = difflib.get_close_matches(name.lower(), choices, n=3, cutoff=0.5)
    message = f"unknown {kind} {name!r}."
    if near:
        message += f" Did you mean {' or '.join(near)}?"
    elif len(choices) <= 40:
        message += f" Known: {', '.join(choices) or 'none'}."
    return UsageError(f"{message} {hint}".rstrip())


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch could not allocate memory, on a GPU or (as far as it is told) on a CPU."""
    return type(error).__name__ == "OutOfMemoryError" or "DefaultCPUAllocator" in str(error)
