"""How far a sweep is: what is done, running where, failed and why, and waiting."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from petlbench import judged, progress
from petlbench.errors import UsageError
from petlbench.store import Store, read_file

SILENT = 120.0  # seconds after which it is told when a run was last heard of


@dataclass(frozen=True)
class Running:
    """A run in flight, as its process told."""

    key: str
    label: str
    message: str
    host: str
    pid: int
    since: float  # seconds since the epoch
    heard: float

    @property
    def dead(self) -> bool:
        """Whether its process is known to be gone; of other machines that is not known."""
        if self.host != platform.node() or os.name != "posix":
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):  # or no system has such a number
            return True
        except PermissionError:  # another user's
            pass
        return False

    def told(self, now: float) -> str:
        silent = now - self.heard
        heard = f", last heard of {progress.duration(silent)} ago" if silent > SILENT else ""
        spent = progress.duration(max(0.0, now - self.since))
        return f"{self.label}: {self.message} ({self.where}, for {spent}{heard})"

    @property
    def where(self) -> str:
        return f"{self.host}, process {self.pid}"


@dataclass(frozen=True)
class Status:
    """Of one results folder."""

    done: frozenset[str]  # keys
    running: list[Running]
    stopped: list[Running]  # their processes are gone; run again by the next command
    failed: dict[str, list[str]]  # reason -> runs
    waiting: int | None  # None where nobody said what is to be run

    @property
    def failures(self) -> int:
        return sum(map(len, self.failed.values()))


def read(store: Store, keys: Collection[str] | None = None, peek: bool = False) -> Status:
    """Of all runs in the folder, or of those with these keys. Writes nothing there.

    With `peek`, only records that tell the test accuracy over training are done.
    """
    good = judged.look(store.records)
    done = {key for key, told in good.items() if told.done and (told.peek or not peek)}
    if keys is not None:
        done &= set(keys)
    claimed = [run for run in _claimed(store.claims) if keys is None or run.key in keys]
    tried = {key for key, told in judged.look(store.failed).items() if not told.done}
    # one that is recorded, and whose process died before it took its claim back, is told once
    stopped = [run for run in claimed if run.dead and run.key not in done | tried]
    running = [run for run in claimed if not run.dead and run.key not in done]
    busy = {run.key for run in running}
    failed: dict[str, list[str]] = {}
    for key in sorted(tried - done - busy):
        if keys is None or key in keys:
            _add_failure(failed, store.failed / f"{key}.json")
    waiting = None
    if keys is not None:  # those that stopped are run again and so wait, too
        waiting = len(set(keys) - done - busy) - sum(map(len, failed.values()))
    return Status(frozenset(done), running, stopped, failed, waiting)


def folders(folder: Path | str) -> list[Path]:
    """The results folders at or right below `folder`, also where nothing is finished yet."""
    folder = Path(folder).expanduser()
    found = [each for each in (folder, *sorted(folder.glob("*/"))) if (each / "records").is_dir()]
    if not found:
        raise UsageError(
            f"no results in {folder}, and nothing that is running: start something (petlbench "
            "run), or say where it is: --results DIR."
        )
    return found


def _claimed(folder: Path) -> list[Running]:
    found = []
    for file in sorted(folder.glob("*.progress")):
        try:
            heard = file.stat().st_mtime
            told = progress.parse(file.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # it ended meanwhile, or is being written
            continue
        found.append(Running(file.stem, *told, heard))
    return found


def _add_failure(failed: dict[str, list[str]], file: Path) -> None:
    record, _ = read_file(file)
    if record is not None:
        error, spec = record["error"], record["spec"]
        reason = " ".join(f"{error['type']}: {error.get('message', '')}".split())
        name = f"{spec['method']['label']} on {spec['task']}, seed {spec['seed']}"
        failed.setdefault(reason.rstrip(": "), []).append(name)


def lines(status: Status, folder: Path, left: str = "", now: float | None = None) -> list[str]:
    """What a person reads."""
    now = time.time() if now is None else now
    parts = [
        f"{len(status.done):,} done",
        f"{len(status.running)} running",
        *([f"{len(status.stopped)} stopped half-way"] if status.stopped else []),
        f"{status.failures} failed",
        *([f"{status.waiting:,} waiting"] if status.waiting is not None else []),
        *([left] if left else []),
    ]
    told = [f"{folder}: {', '.join(parts)}"]
    told += [f"  running  {run.told(now)}" for run in status.running]
    told += [f"  stopped  {run.label}: {run.message} ({run.where})" for run in status.stopped]
    for reason, names in sorted(status.failed.items(), key=lambda item: -len(item[1])):
        more = f" and {len(names) - 2:,} more" if len(names) > 2 else ""
        told.append(f"  failed   {'; '.join(names[:2])}{more}: {_short(reason)}")
    return [" ".join(line.splitlines()) for line in told]  # no name begins a line of its own


def _short(text: str, length: int = 300) -> str:
    return text if len(text) <= length else f"{text[: length - 3]}..."
