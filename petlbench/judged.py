"""Which records of a folder were read and found good, so that a plan opens only what is new.

Reading and judging 100,000 records takes a third of a minute, asking whether they changed a
second. What was found is remembered in the user's cache, for files that have the same size, inode
and times as when they were read (home.stamp).
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from petlbench import home
from petlbench.store import read_file


class Good(NamedTuple):
    """What a plan asks of a record that can be counted."""

    fingerprint: str
    task: str
    seed: int
    members: Mapping[str, str]
    done: bool
    peek: bool


def look(folder: Path) -> dict[str, Good]:
    """Key -> what is told of each record in `folder` that can be counted."""
    file = _file(folder)
    kept = home.recall(file) or {"groups": [], "files": {}}
    groups: list[list[Any]] = kept["groups"]  # the first four of Good: few differ
    numbers = {_text(group): number for number, group in enumerate(groups)}
    found: dict[str, Good] = {}
    stored: dict[str, list[Any]] = {}
    changed = False
    now = time.time()
    for entry in _entries(folder):
        key = entry.name.removesuffix(".json")
        try:
            stamp = home.stamp(entry.stat())
        except OSError:  # deleted meanwhile
            continue
        known = kept["files"].get(key)
        if known is None or known[:4] != stamp:
            record, _ = read_file(Path(entry.path))
            if record is None:
                continue
            spec = record["spec"]
            group = [record["fingerprint"], spec["task"], spec["seed"], spec["members"]]
            number = numbers.setdefault(_text(group), len(numbers))
            if number == len(groups):
                groups.append(group)
            known = [*stamp, number, record["status"] == "done", "peek" in record]
            changed |= (settled := home.settled(stamp, now))
        else:
            settled = True
        if settled:
            stored[key] = known
        found[key] = Good(*groups[known[4]], *known[5:])
    if changed:
        with contextlib.suppress(OSError):  # a full disk costs the time again, and nothing else
            home.remember(file, {"groups": groups, "files": stored})
    return found


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if entry.name.endswith(".json")]
    except OSError:
        return []


def _text(group: Any) -> str:
    return json.dumps(group, sort_keys=True)


def _file(folder: Path) -> Path:
    name = hashlib.sha256(f"{_rules()}\n{folder.absolute()}".encode()).hexdigest()[:24]
    return home.cache_folder() / "judged" / f"{name}.json"


@functools.cache
def _rules() -> str:
    """Hash of the code that judges: another version judges anew."""
    files = (Path(__file__).with_name(name) for name in ("record.py", "spec.py", "protocol.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
