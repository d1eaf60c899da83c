"""A small, real sweep that can be disturbed, and what must be true of it afterwards.

Its processes are forked from a server that has only imported what a sweep needs, so that hundreds
of them can be started and killed. It never computes: threads would not survive a fork.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from PIL import Image

from petlbench import status
from petlbench.store import Store, read_file

T = TypeVar("T")

LEASE = 5.0  # seconds, of forked sweeps: a torn claim must not take two minutes
PATIENCE = 240.0  # seconds for what takes two on a quiet machine

# what may differ when a run is made again; of a search, each trial tells its seconds
OF_A_PROCESS = {"started", "setup_seconds", "train_seconds", "test_seconds", "seconds"}
OF_A_PROCESS |= {"peak_bytes", "environment"}

PETLBENCH = ("api", "cli", "execute", "experiment", "formats.table", "plan", "statistics.judge")
PRELOAD = ["rich.live_render", "rich.progress", *(f"petlbench.{name}" for name in PETLBENCH)]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(PRELOAD)


@dataclass(frozen=True)
class Sweep:
    """Each method with each seed, tuned by trials, on two dozen images; all under `home`."""

    home: Path
    methods: tuple[str, ...] = ("linear", "bitfit", "lora")
    seeds: int = 2
    search: int = 2

    @property
    def runs(self) -> int:
        return len(self.methods) * self.seeds

    @property
    def images(self) -> Path:
        return self.home / "shapes"

    @property
    def cache(self) -> Path:
        return self.home / "cache"

    def prepare(self) -> None:
        """Write the images: noise in three classes."""
        noise = np.random.default_rng(0)
        for label in ("circle", "square", "star"):
            (self.images / label).mkdir(parents=True)
            for number in range(8):
                pixels = noise.integers(0, 256, size=(8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(self.images / label / f"{number}.png")

    def arguments(self, results: Path, *more: str) -> list[str]:
        """Of `petlbench`; an option of `more` takes the place of the sweep's own."""
        options = {
            "--suite": "folder",
            "--data-root": str(self.images),
            "--backbone": "vit_mini",
            "--checkpoint": "random",
            "--methods": ",".join(self.methods),
            "--seeds": str(self.seeds),
            "--search": str(self.search),
            "--image-size": "16",
            "--epochs": "2",
            "--precision": "fp32",
            "--attention": "explicit",
            "--device": "cpu",
            "--threads": "1",
            "--jobs": "1",
            "--results": str(results),
            "--set": "protocol.warmup_epochs=0",
        } | dict(zip(more[::2], more[1::2], strict=True))
        return ["run", *(word for option in options.items() for word in option)]

    def command(self, results: Path, *more: str) -> list[str]:
        """To be typed, as it were; it needs the `environment`."""
        return [sys.executable, "-m", "petlbench", *self.arguments(results, *more)]

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"PETLBENCH_CACHE": str(self.cache)}

    def start(
        self,
        results: Path,
        *more: str,
        fault: Callable[[], object] | None = None,
        lease: float = LEASE,
    ) -> BaseProcess:
        """The same command in a forked process, in which `fault` is called first.

        What it prints is added to `<results>.log`. It draws no figure: that takes longer than the
        runs. A `fault` must be importable (a function of a module, or a partial of one). Workers
        of --jobs have the `lease` of the product.
        """
        given = self.cache, results, self.arguments(results, *more), fault, lease
        process = _context.Process(target=_forked, args=given)
        process.start()
        return process

    def finish(self, results: Path, *more: str, lease: float = LEASE) -> None:
        """The command again, left alone: it does what is left to do."""
        process = self.start(results, *more, fault=_later, lease=lease)
        assert ended(process) == 0, said(results)


def _later() -> None:
    """Nobody else is writing by now: what is half-written is given up at once."""
    from petlbench import store

    store.ABANDONED = 0.0


def _forked(
    cache: Path,
    results: Path,
    arguments: list[str],
    fault: Callable[[], object] | None,
    lease: float,
) -> None:
    os.setsid()  # a process group of its own: see `kill`
    log = os.open(f"{results}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(log, stream)
    from petlbench import cli, plots, store

    os.environ["PETLBENCH_CACHE"] = str(cache)
    plots.draw = lambda *_: None
    store.LEASE, store.RENEWAL = lease, lease / 6  # as in the product
    if fault is not None:
        fault()
    try:
        cli.main(arguments)
    finally:
        threading._shutdown()  # as Python ends: joblib's workers go before multiprocessing waits


def said(results: Path) -> str:
    """What the sweeps of that folder printed."""
    return Path(f"{results}.log").read_text()


def ended(process: BaseProcess) -> int:
    """Its exit code; -9 of one that was killed."""
    process.join(PATIENCE)
    if process.exitcode is None:
        kill(process)
        raise AssertionError(f"the sweep still ran after {PATIENCE} seconds")
    return process.exitcode


def kill(process: BaseProcess) -> None:
    """SIGKILL to the sweep and to all that it started."""
    with contextlib.suppress(ProcessLookupError):  # it has not made its group yet, or is gone
        os.killpg(pid(process), signal.SIGKILL)
    process.kill()
    process.join()


def pid(process: BaseProcess) -> int:
    """Of a process that was started."""
    assert process.pid is not None
    return process.pid


def workers(results: Path, parent: BaseProcess) -> list[int]:
    """Processes of a sweep with several --jobs, as far as they are running something."""
    found = [run.pid for run in status.read(Store(results)).running]
    return [each for each in found if os.getpgid(each) == pid(parent)]


def wait_for(what: Callable[[], T]) -> T:
    """The first true answer."""
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)
    return found


class Written:
    """The records and trials seen in a results folder. Nothing of them may change any more."""

    def __init__(self, results: Path) -> None:
        self.folders = [results / "records", results / "trials"]
        self.seen: dict[Path, tuple[int, int, bytes]] = {}

    def look(self) -> int:
        """Assert that what was there still is, and can be read; returns how many are new."""
        now = {file: _identity(file) for each in self.folders for file in each.glob("*.json")}
        for file, identity in self.seen.items():
            assert now.get(file) == identity, f"{file} was there before"
        new = now.keys() - self.seen.keys()
        for file in new:
            record, why = read_file(file)
            assert record is not None, why
        self.seen = now
        return len(new)


def _identity(file: Path) -> tuple[int, int, bytes]:
    found = file.stat()
    return found.st_ino, found.st_mtime_ns, file.read_bytes()


def assert_whole(results: Path, reference: Path) -> None:
    """Both folders hold the same finished runs, bit for bit, and nothing else.

    What may remain of processes that were killed: claims and lines of progress, a few bytes each,
    of runs whose record was written before. Nobody looks for them again.
    """
    records, expected = _records(results), _records(reference)
    assert records.keys() == expected.keys()
    for key, record in records.items():
        assert _lasting(record) == _lasting(expected[key]), key
    for folder in ("artifacts", "trials", "failed"):
        assert _names(results / folder) == _names(reference / folder)
    for file in (reference / "artifacts").iterdir():
        assert (results / "artifacts" / file.name).read_bytes() == file.read_bytes(), file.name
    assert _board(results).equals(_board(reference))
    left = {file.name.partition(".")[0] for file in (results / "claims").iterdir()}
    assert left <= records.keys() | {file.stem for file in (results / "trials").iterdir()}


def _records(results: Path) -> dict[str, dict[str, Any]]:
    records, problems = Store(results).load()
    assert not problems, problems
    keys = [record["key"] for record in records if record["status"] == "done"]
    assert len(records) == len(keys) == len(set(keys)) == len(_names(results / "records"))
    return {record["key"]: record for record in records}


def _names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


def _lasting(told: Any) -> Any:
    """A record without what another process measures otherwise."""
    if isinstance(told, dict):
        return {name: _lasting(v) for name, v in told.items() if name not in OF_A_PROCESS}
    return [_lasting(each) for each in told] if isinstance(told, list) else told


def _board(results: Path) -> pd.DataFrame:
    return pd.read_csv(results / "leaderboard.csv").drop(columns=["train_seconds", "peak_bytes"])
