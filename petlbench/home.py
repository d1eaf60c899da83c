"""Where petlbench keeps what can be made again: decoded images, measured speeds, judged records.

A file that is remembered carries a checksum: one that was damaged is as good as none. Files are
known to be as they were by their stamp.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from petlbench.store import write_text

Stamp = list[int]
SETTLED = 2.0  # seconds


def cache_folder() -> Path:
    folder = os.environ.get("PETLBENCH_CACHE") or "~/.cache/petlbench"
    return Path(folder).expanduser()


def remember(file: Path, value: Any) -> None:
    """Write a value (of JSON) whole, below its checksum."""
    text = json.dumps(value)
    write_text(file, f"{_checksum(text)}\n{text}\n")


def recall(file: Path) -> Any:
    """What was remembered there; None where there is nothing, or it was damaged."""
    try:
        checksum, _, text = file.read_text(encoding="utf-8").partition("\n")
        return json.loads(text) if checksum == _checksum(text[:-1]) else None
    except (OSError, ValueError):
        return None


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def stamp(stat: os.stat_result) -> Stamp:
    """Stays while a file stays as it is: size, inode and times (ctime, which nobody can set)."""
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def settled(stamp: Stamp, now: float) -> bool:
    """Whether any change after `now` (seconds since the epoch) would show in the stamp.

    The clock of a file system is coarse: a file that was written within the last seconds could
    change once more and keep its times. (git's index has the same rule.)
    """
    return max(stamp[1:3]) / 1e9 < now - SETTLED
