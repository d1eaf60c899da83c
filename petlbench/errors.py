"""Errors meant for people: what was wrong, where, and what to type next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# in what PyTorch's CPU allocator and the C++ library say
_OF_ALLOCATORS = ("DefaultCPUAllocator", "bad_alloc")


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


def out_of_memory(error: Exception) -> bool:
    """Whether memory could not be allocated, on a GPU or a CPU, by PyTorch or by anything else."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    told = str(error)
    return isinstance(error, RuntimeError) and any(word in told for word in _OF_ALLOCATORS)
