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
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from petlbench import home
from petlbench.store import read_file

MANY, SOME = 10_000, 1_000  # files that are worth a process for each core, and one call of them
Told = tuple[str, list[Any], list[Any]]  # key, the first four of Good (few differ), the others


class Good(NamedTuple):
    """What a plan asks of a record that can be counted."""

    fingerprint: str
    task: str
    seed: int
    members: Mapping[str, str]
    done: bool
    peek: bool
    value: float | None  # by the task's metric, on what it was tested on


def look(folder: Path) -> dict[str, Good]:
    """Key -> what is told of each record in `folder` that can be counted."""
    file = _file(folder)
    kept = home.recall(file) or {"groups": [], "files": {}}
    groups: list[list[Any]] = kept["groups"]
    lines: dict[str, list[Any]] = {}
    new: dict[str, home.Stamp] = {}
    now = time.time()
    for key, stamp in _stamps(folder):
        line = kept["files"].get(key)
        if line and line[:4] == stamp:
            lines[key] = line
        else:
            new[key] = stamp
    if new:
        numbers = {_text(group): number for number, group in enumerate(groups)}
        for key, group, told in _read(folder, list(new)):
            number = numbers.setdefault(_text(group), len(numbers))
            if number == len(groups):
                groups.append(group)
            lines[key] = [*new[key], number, *told]
    found = {key: Good(*groups[line[4]], *line[5:]) for key, line in lines.items()}
    unsettled = {key for key, stamp in new.items() if not home.settled(stamp, now)}
    if lines.keys() & (new.keys() - unsettled):
        stored = {key: line for key, line in lines.items() if key not in unsettled}
        with contextlib.suppress(OSError):  # a full disk costs the time again, and nothing else
            home.remember(file, {"groups": groups, "files": stored})
    return found


def _stamps(folder: Path) -> Iterator[tuple[str, home.Stamp]]:
    """Keys, and what tells that a file is still the same."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                with contextlib.suppress(OSError):  # deleted meanwhile
                    yield entry.name.removesuffix(".json"), home.stamp(entry.stat())


def _read(folder: Path, keys: Sequence[str]) -> Iterator[Told]:
    """What is told of the records that can be counted; by all cores where there are many."""
    if len(keys) < MANY:
        yield from _tell(folder, keys)
        return
    import joblib

    from petlbench.apart import side_by_side

    parts = [(_tell, (folder, keys[i : i + SOME])) for i in range(0, len(keys), SOME)]
    for part in side_by_side(parts, joblib.cpu_count(), threads=1):
        yield from part


def _tell(folder: Path, keys: Sequence[str]) -> list[Told]:
    told = []
    for key in keys:
        record, _ = read_file(folder / f"{key}.json")
        if record is not None:
            spec, test = record["spec"], record.get("test", {})
            group = [record["fingerprint"], spec["task"], spec["seed"], spec["members"]]
            value = test.get("metrics", {}).get(test.get("metric"))
            told.append((key, group, [record["status"] == "done", "peek" in record, value]))
    return told


def _text(group: Any) -> str:
    return json.dumps(group, sort_keys=True)


def _file(folder: Path) -> Path:
    name = hashlib.sha256(f"{_rules()}\n{folder.absolute()}".encode()).hexdigest()[:24]
    return home.cache_folder() / "judged" / f"{name}.json"


@functools.cache
def _rules() -> str:
    """Hash of the code that judges, and tells: another version judges anew."""
    names = ("judged.py", "store.py", "record.py", "spec.py", "protocol.py")
    files = (Path(__file__).with_name(name) for name in names)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
