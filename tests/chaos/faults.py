"""What a sweep may meet: a disk that refuses the k-th request to write, a limit of memory."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

_TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT


@dataclass
class Disk:
    """Requests are: open or make a file, make a folder, set a mode, rename, flush."""

    folder: Path
    at: int  # the request that is refused, from 1
    error: int
    lasting: bool
    requests: int = 0

    @property
    def refused(self) -> bool:
        return self.requests >= self.at

    def asked(self, path: str) -> None:
        if not path.startswith(f"{self.folder}{os.sep}"):
            return
        self.requests += 1
        if self.requests == self.at or (self.lasting and self.refused):
            raise OSError(self.error, os.strerror(self.error), path)


_watched: list[Disk] = []


@contextmanager
def disk(folder: Path, at: int, error: int, lasting: bool = True) -> Iterator[Disk]:
    """In this process; `/proc` tells which file is flushed."""
    flush = os.fsync
    watched = Disk(folder, at, error, lasting)

    def fsync(number: int) -> None:
        watched.asked(os.readlink(f"/proc/self/fd/{number}"))
        flush(number)

    with mock.patch.object(os, "fsync", fsync):
        _watched.append(watched)
        try:
            yield watched
        finally:
            _watched.remove(watched)


def _look(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watched:
        return
    path: Any = None
    if (event == "open" and arguments[2] & _TO_WRITE) or event in ("os.mkdir", "os.chmod"):
        path = arguments[0]
    elif event == "os.rename":
        path = arguments[1]
    if isinstance(path, (str, os.PathLike)):
        _watched[-1].asked(os.path.abspath(path))


sys.addaudithook(_look)  # which cannot be taken back


def memory(room: int) -> None:
    """This process may take that many bytes more than it has, addresses included."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    allowed = pages * resource.getpagesize() + room
    resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
