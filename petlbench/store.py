"""Records on disk: one JSON file per run, written whole and renamed into place.

<results>/records/<key>.json       a finished run: it is done because the file exists
<results>/failed/<key>.json        a failed run, with its traceback; tried again next time
<results>/trials/<key>.json        a trial of a search, done or failed
<results>/artifacts/<key>.*        test predictions and trained weights
<results>/claims/<key>.lease       held by the process that is running it, on whichever machine
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from petlbench.errors import UsageError
from petlbench.record import SCHEMA as SCHEMA  # re-exported for those who write records
from petlbench.record import Record as Record
from petlbench.record import problem

# A claim that its holder has not renewed for LEASE is given up: the holder's machine is gone. Far
# above RENEWAL plus the minute for which a network folder may show an old time stamp. Every machine
# that shares a folder must have the same LEASE.
LEASE, RENEWAL = 120.0, 20.0  # seconds
UNFINISHED = ".part"  # how a file's name ends while it is written
ABANDONED = 3600.0  # seconds after which nobody writes it any more
LARGEST = 2**26  # bytes that may be a record; one of 1,000 epochs and 100 trials takes 2**16


class Unwritable(UsageError):
    """The results folder takes nothing more: the sweep stops, and no run has failed."""


def unwritable(folder: Path, error: OSError) -> Unwritable:
    what = f" ({error.filename2})" if error.filename2 else ""  # what could not be renamed to
    return Unwritable(
        f"results folder {folder} cannot be written: {error.strerror or error}{what}. Finished "
        "runs are safe; make room or choose another folder (--results DIR), then type the same "
        "command to go on."
    )


class Store:
    """The results folder of one comparison."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)  # as it was given, for messages
        base = self.folder.absolute()  # workers may have another working directory
        self.records, self.failed = base / "records", base / "failed"
        self.artifacts, self.claims = base / "artifacts", base / "claims"
        self.trials = base / "trials"

    def require_writable(self) -> None:
        """Find out before hours of computing, not after; what the dead left half-written goes."""
        try:
            kept = self.records, self.failed, self.trials, self.artifacts, self.claims
            for folder in (self.records.parent, *kept):
                folder.mkdir(parents=True, exist_ok=True)
                _drop_unfinished(folder)
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def read(self, key: str, peek: bool = False) -> Record | None:
        """The record of a finished run; None if there is none that can be read.

        With `peek`, only one that tells how the test accuracy went over training.
        """
        record, _ = read_file(self.records / f"{key}.json")
        if record is None or record["status"] != "done" or (peek and "peek" not in record):
            return None
        return record

    def read_trial(self, key: str) -> Record | None:
        """The record of a trial, done or failed; None if there is none that can be read."""
        return read_file(self.trials / f"{key}.json")[0]

    def write_trial(self, record: Record) -> None:
        """Raises Unwritable."""
        try:
            write_text(self.trials / f"{record['key']}.json", _dump(record))
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def forget_trial(self, key: str) -> None:
        (self.trials / f"{key}.json").unlink(missing_ok=True)

    def load(self) -> tuple[list[Record], list[str]]:
        """Every record, finished and failed, and a sentence for each file that is left out."""
        records, problems = [], []
        for folder, status in ((self.records, "done"), (self.failed, "failed")):
            for file in sorted(folder.glob("*.json")):
                record, why = read_file(file)
                if record is None:
                    problems.append(why)
                elif record["status"] != status:
                    problems.append(
                        f"{file} has status {record['status']} and is in the folder of others; it "
                        "is left out."
                    )
                else:
                    records.append(record)
        done = {record["key"] for record in records if record["status"] == "done"}
        return [r for r in records if r["status"] == "done" or r["key"] not in done], problems

    def write(self, record: Record, artifacts: Mapping[str, bytes] = MappingProxyType({})) -> None:
        """Store a finished or failed run, after its files, by suffix. Raises Unwritable.

        The latest word on a run replaces the failed one.
        """
        key = record["key"]
        try:
            for suffix, content in artifacts.items():
                write_bytes(self.artifacts / f"{key}{suffix}", content)
            if record["status"] == "done":
                write_text(self.records / f"{key}.json", _dump(record))
                (self.failed / f"{key}.json").unlink(missing_ok=True)
            else:
                write_text(self.failed / f"{key}.json", _dump(record))
        except OSError as error:
            raise unwritable(self.folder, error) from error

    def artifact(self, record: Mapping[str, Any], suffix: str) -> Path:
        """A file that a run left beside its record, as it left it.

        Raises FileNotFoundError, or UsageError where another content has its name.
        """
        file = self.artifacts / f"{record['key']}{suffix}"
        told = record.get("artifacts", {suffix: None})  # earlier versions told of none
        if suffix not in told:  # what lies there is of a process that ended before its record
            raise FileNotFoundError(errno.ENOENT, "its run left no such file", str(file))
        with file.open("rb") as content:
            found = hashlib.file_digest(content, "sha256").hexdigest()
        if told[suffix] not in (None, found):
            raise UsageError(
                f"{file} is not what its run wrote: it was cut short, edited or replaced. (For the "
                f"run to be made again, move all files of its name out of {self.folder}.)"
            )
        return file

    @contextmanager
    def claim(self, key: str, wait: bool) -> Iterator[bool]:
        """Hold the run `key` against other processes; yields False if another one has it.

        The folder may be shared by many machines. A claim is a file that its holder renews: it is
        free at once when the holder died on this machine, and after LEASE seconds without renewal
        when it died on another one. Clocks are not compared. Where a holder was only asleep two
        processes may make the same run, and the first record counts (see `experiment.run`).
        """
        from filelock import LeaseSettingsMismatch, SoftFileLease, Timeout

        file = self.claims / f"{key}.lease"
        lock = SoftFileLease(file, lease_duration=LEASE, heartbeat_interval=RENEWAL)
        while not lock.is_locked:
            _drop_torn(file)
            try:
                lock.acquire(timeout=LEASE if wait else 0, poll_interval=0.25)
            except Timeout:
                if not wait:
                    yield False
                    return
            except LeaseSettingsMismatch as error:
                raise UsageError(
                    f"{file} is the claim of another version of petlbench: use the same version "
                    "wherever this folder is used. If no other is running any more, delete the "
                    "file; then type the same command to go on."
                ) from error
            except OSError as error:
                raise unwritable(self.folder, error) from error
        try:
            yield True
        finally:
            lock.release()


def _drop_torn(claim: Path) -> None:
    """Remove a claim whose holder died before it wrote who it is: filelock keeps that for ever."""
    with suppress(OSError):
        found = claim.stat()
        if found.st_size == 0 and abs(time.time() - found.st_mtime) > LEASE:
            claim.unlink()


def _drop_unfinished(folder: Path) -> None:
    """Try to write there, and remove files that a process was writing when it was killed.

    How old they are is told by the folder's own clock: that of the file written now.
    """
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".", suffix=UNFINISHED) as new:
        now = os.fstat(new.fileno()).st_mtime
        for file in folder.glob(f".*{UNFINISHED}"):
            with suppress(OSError):  # another machine tidies, too; or it is another user's
                if abs(now - file.stat().st_mtime) > ABANDONED:
                    file.unlink()


def read_file(file: Path) -> tuple[Record | None, str]:
    """The record in a file of that name; else None, and a sentence that says why not."""
    try:
        found = file.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST:  # a pipe would never end
            return None, f"{file} is not a record of petlbench; it is left out."
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return None, f"{file} cannot be read ({error}); it is left out."
    return _judged(text, str(file), file.stem)


def read_lines(file: Path) -> Iterator[tuple[Record | None, str]]:
    """The records of a file with one on each line, each as `read_file` gives it."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        yield None, f"{file} cannot be read ({error}); it is left out."
        return
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _judged(line, f"{file}, line {number},")


def _judged(text: str, where: str, key: str | None = None) -> tuple[Record | None, str]:
    try:
        record = json.loads(text)
        if key is None and isinstance(record, dict):
            key = record.get("key")
        why = problem(record, key)
        if not why and record.pop("digest", None) not in (None, _digest(record)):
            why = "was edited: its digest is not that of its content"
    except (ValueError, RecursionError) as error:
        record, why = None, f"cannot be read ({error})"
    return (None, f"{where} {why}; it is left out.") if why else (record, "")


def _dump(record: Record) -> str:
    told = record | {"digest": _digest(record)}  # earlier versions wrote none
    return json.dumps(told, indent=1, allow_nan=False) + "\n"


def _digest(record: Record) -> str:
    """Of the content in its order, however it is laid out in a file."""
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()


def write_text(file: Path, text: str) -> None:
    write_bytes(file, text.encode("utf-8"))


def write_bytes(file: Path, content: bytes) -> None:
    with _whole(file) as stream:
        stream.write(content)


def copy(source: Path, file: Path) -> None:
    with _whole(file) as stream, source.open("rb") as content:
        shutil.copyfileobj(content, stream)


@contextmanager
def _whole(file: Path) -> Iterator[IO[bytes]]:
    """Write whole or not at all: to a temporary file beside it, flushed, then renamed."""
    file.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(UNFINISHED, f".{file.name}.", file.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(name, 0o644)
        os.replace(name, file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
