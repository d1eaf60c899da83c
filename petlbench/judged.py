"""Which records of a folder were read and found good, so that a plan opens only what is new.

Reading and judging 100,000 records takes a third of a minute, asking whether they changed a
second. What was found is remembered in the user's cache, for files that have the same size, inode
and times (ctime, which nobody can set) as when they were read. As in git's index, a file that was
written within the last seconds is read again the next time, since its times could stay the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from petlbench.home import cache_folder
from petlbench.store import Record, read_file, write_text

SETTLED = 2.0  # seconds
MANY, SOME = 10_000, 1_000  # files that are worth a process for each core, and one call of them
Told = tuple[list[Any], list[Any]]  # of a record: the first four of Good, which few differ in


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
    kept = _recall(file)
    groups: list[list[Any]] = kept["groups"]
    numbers = {_text(group): number for number, group in enumerate(groups)}
    settled = (time.time() - SETTLED) * 1e9
    stamps = _stamps(folder)
    lines = {key: line for key, line in kept["files"].items() if line[:4] == stamps.get(key)}
    new = _read([folder / f"{key}.json" for key in stamps if key not in lines])
    for key, (group, told) in new.items():
        number = numbers.setdefault(_text(group), len(numbers))
        if number == len(groups):
            groups.append(group)
        lines[key] = [*stamps[key], number, *told]
    found = {key: Good(*groups[line[4]], *line[5:]) for key, line in lines.items()}
    unsettled = {key for key in new if max(lines[key][1:3]) >= settled}
    if len(new) > len(unsettled):
        stored = {key: line for key, line in lines.items() if key not in unsettled}
        with contextlib.suppress(OSError):  # a full disk costs the time again, and nothing else
            write_text(file, json.dumps({"groups": groups, "files": stored}))
    return found


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Key -> what tells that a file is still the same."""
    found = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(".json"):
                with contextlib.suppress(OSError):  # deleted meanwhile
                    stat = entry.stat()
                    stamp = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
                    found[entry.name.removesuffix(".json")] = stamp
    return found


def _read(files: Sequence[Path]) -> dict[str, Told]:
    """Key -> what is told, of the files whose records can be counted."""
    if len(files) >= MANY:
        import joblib

        from petlbench.backends.local import side_by_side

        parts = [(_read, (files[i : i + SOME],)) for i in range(0, len(files), SOME)]
        found = side_by_side(parts, joblib.cpu_count(), threads=1)
        return {key: told for part in found for key, told in part.items()}
    return {file.stem: _told(record) for file in files if (record := read_file(file)[0])}


def _told(record: Record) -> Told:
    spec, test = record["spec"], record.get("test", {})
    value = test.get("metrics", {}).get(test.get("metric"))
    group = [record["fingerprint"], spec["task"], spec["seed"], spec["members"]]
    return group, [record["status"] == "done", "peek" in record, value]


def _text(group: Any) -> str:
    return json.dumps(group, sort_keys=True)


def _recall(file: Path) -> dict[str, Any]:
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        return {"groups": list(kept["groups"]), "files": dict(kept["files"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"groups": [], "files": {}}


def _file(folder: Path) -> Path:
    name = hashlib.sha256(f"{_rules()}\n{folder.absolute()}".encode()).hexdigest()[:24]
    return cache_folder() / "judged" / f"{name}.json"


@functools.cache
def _rules() -> str:
    """Hash of the code that judges, and tells: another version judges anew."""
    names = ("judged.py", "record.py", "spec.py", "protocol.py")
    files = (Path(__file__).with_name(name) for name in names)
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
