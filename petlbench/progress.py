"""Progress of runs in other processes: each leaves a line in a file, one thread shows them."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from petlbench.wording import visible

if TYPE_CHECKING:
    from rich.progress import TaskID

INTERVAL = 0.25  # seconds


class Reporter:
    """Called by the process that runs; writes at most once per interval.

    The file's first line is for a person, the second tells (as JSON) who runs what since when.
    """

    def __init__(self, file: Path, label: str) -> None:
        self.file, self.label, self.last = file, label, 0.0
        self.since = time.time()

    def __call__(self, message: str) -> None:
        now = time.monotonic()
        if now - self.last >= INTERVAL:
            self.last = now
            told = [self.label, message, platform.node(), os.getpid(), self.since]
            self._write(f"{self.label}: {message}\n{json.dumps(told)}\n")

    def _write(self, text: str) -> None:
        # a full disk is reported where results are written, not by the progress line
        with contextlib.suppress(OSError):
            new = self.file.with_suffix(".writing")
            new.write_text(text, encoding="utf-8")
            new.replace(self.file)  # whoever reads it finds all or nothing of it

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.file.unlink(missing_ok=True)


class Display:
    """A bar over all runs and a line per run in flight; silent when not on a terminal."""

    def __init__(self, folder: Path, total: int, enabled: bool | None = None) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        from petlbench import screen

        self.folder, self.started = folder, time.time()
        console = screen.console(stderr=True)
        self.enabled = sys.stderr.isatty() if enabled is None else enabled
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not self.enabled,
        )
        self.runs = self.progress.add_task("runs", total=total)

    def advance(self) -> None:
        self.progress.advance(self.runs)

    def message(self, text: str) -> None:
        self.progress.console.print(
            text, style="yellow", markup=False, highlight=False, soft_wrap=True
        )

    @contextmanager
    def live(self) -> Iterator[Display]:
        stop = threading.Event()
        thread = threading.Thread(target=self._watch, args=(stop,), daemon=True)
        with self.progress:
            if self.enabled:
                thread.start()
            try:
                yield self
            finally:
                stop.set()
                if self.enabled:
                    thread.join()

    def _watch(self, stop: threading.Event) -> None:
        shown: dict[str, TaskID] = {}
        while not stop.wait(INTERVAL):
            current = _read(self.folder, self.started)
            for name in shown.keys() - current.keys():
                self.progress.remove_task(shown.pop(name))
            for name, (text, done, total) in current.items():
                if name not in shown:
                    shown[name] = self.progress.add_task(text, total=total)
                self.progress.update(
                    shown[name],
                    description=text,
                    completed=done,
                    total=total,
                )
        for task in shown.values():
            self.progress.remove_task(task)


def parse(text: str) -> tuple[str, str, str, int, float]:
    """(label, message, host, process id, seconds since the epoch at the start) in a file's text.

    Raises ValueError where it is not that.
    """
    told = json.loads(text.partition("\n")[2])
    kinds = [type(value) for value in told] if isinstance(told, list) else None
    if kinds != [str, str, str, int, float]:
        raise ValueError("not the progress of a run")
    return (*told,)


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _read(folder: Path, since: float) -> dict[str, tuple[str, int, int]]:
    """File name -> (text, done, total) of the runs in flight ("epoch 3/12" gives 3 and 12)."""
    lines = {}
    for entry in os.scandir(folder):
        if not entry.name.endswith(".progress"):
            continue
        try:
            if entry.stat().st_mtime < since - 1:
                continue  # left behind by a process that was killed
            text = Path(entry.path).read_text(encoding="utf-8").partition("\n")[0]
        except (OSError, UnicodeDecodeError):
            continue
        text = visible(text)
        fraction = next((word for word in text.split() if "/" in word), "0/1")
        done, _, total = fraction.partition("/")
        if done.isdigit() and total.isdigit():
            lines[entry.name] = (text, int(done), int(total))
    return lines
