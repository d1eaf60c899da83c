"""SIGKILL: before every step that a sweep takes on the disk, at random moments, and of workers."""

from __future__ import annotations

import functools
import os
import random
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from filelock import SoftFileLease

from chaos.sweep import (
    LEASE,
    Sweep,
    Written,
    assert_whole,
    ended,
    kill,
    pid,
    said,
    wait_for,
    workers,
)
from petlbench import store

KILLS = int(os.environ.get("CHAOS_KILLS", "200"))  # at random moments
STEPS = {"open", "os.chmod", "os.link", "os.remove", "os.rename"}  # audit events


def die(results: Path, number: int) -> None:
    """From now on this process kills itself before its step of that number (0-based)."""
    left = iter(range(number, -1, -1))

    def step(name: str) -> None:
        if next(left) == 0:
            Path(f"{results}.died").write_text(name)
            os.kill(os.getpid(), signal.SIGKILL)

    def heard(event: str, arguments: tuple[Any, ...]) -> None:
        if event not in STEPS or not str(arguments[0]).startswith(f"{results}{os.sep}"):
            return
        if event != "open" or arguments[2] & (os.O_WRONLY | os.O_RDWR):
            step(event)

    def before(call: Callable[..., Any], *arguments: Any) -> Any:
        step(f"os.{call.__name__}")
        return call(*arguments)

    sys.addaudithook(heard)
    os.write = functools.partial(before, os.write)  # what filelock writes claims with
    os.fsync = functools.partial(before, os.fsync)


def test_before_every_step(tmp_path: Path, sweep: Sweep, count: Callable[[str], None]) -> None:
    short = Sweep(sweep.home, methods=("lora",), seeds=1)
    short.finish(tmp_path / "undisturbed")
    died: Counter[str] = Counter()

    def killed_at(number: int) -> bool:
        results = tmp_path / str(number)
        code = ended(short.start(results, fault=functools.partial(die, results, number)))
        assert code in (0, -signal.SIGKILL), said(results)
        written = Written(results)
        written.look()
        short.finish(results)
        written.look()
        assert_whole(results, tmp_path / "undisturbed")
        if code:
            died[Path(f"{results}.died").read_text()] += 1
        return code != 0

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        first = 0
        while all(pool.map(killed_at, range(first, first + 10))):
            first += 10
    told = ", ".join(f"{number} {name}" for name, number in died.most_common())
    count(f"killed before every step of a sweep: {died.total()} times ({told})")
    assert died.total() > 50 and len(died) > 5


def test_at_random_moments(
    tmp_path: Path, sweep: Sweep, reference: Path, count: Callable[[str], None]
) -> None:
    """Of two sweeps on one folder, again and again, until it is finished; then on another one.

    (`reference` decodes the images, so that this is not timed.)
    """
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
    print(f"CHAOS_SEED={seed}")  # shown where the test fails
    draw = random.Random(seed)
    long = Sweep(sweep.home, seeds=4)
    begin = time.monotonic()
    long.finish(tmp_path / "undisturbed")
    span = time.monotonic() - begin  # seconds within which a sweep is killed
    phases: Counter[str] = Counter()
    folders = records = 0
    while phases.total() < KILLS:
        results = tmp_path / str(folders)
        written = Written(results)
        codes: set[int] = set()
        while 0 not in codes and phases.total() < KILLS:
            begin = time.monotonic()
            sweeps = [long.start(results) for _ in range(2)]
            for process in sweeps:
                moment = begin + draw.uniform(0, span)
                process.join(max(0.0, moment - time.monotonic()))
                kill(process)
            codes = {ended(process) for process in sweeps}
            assert codes <= {0, -signal.SIGKILL}, said(results)
            phases.update(phase(results, each) for each in sweeps if ended(each))
            new = written.look()
            records += new
            span *= 0.8 if new else 1.25  # no kill is wasted, and no sweep never gets on
        tidy(results)
        long.finish(results)
        records += written.look()
        assert_whole(results, tmp_path / "undisturbed")
        shutil.rmtree(results)
        folders += 1
    told = ", ".join(f"{number} {name}" for name, number in phases.most_common())
    count(f"killed at random moments (CHAOS_SEED={seed}): {phases.total()} times ({told});")
    count(f"{folders} sweeps finished all the same, {records} runs and trials recorded once each")


def tidy(results: Path) -> None:
    """What is half-written would go with the next run; but all may be finished by now."""
    for file in results.rglob(f"*{store.UNFINISHED}"):
        file.unlink()


def phase(results: Path, process: BaseProcess) -> str:
    """What it did when it was killed, by what it left."""
    claims = results.glob("claims/*.lease")
    own = {f.stem for f in claims if SoftFileLease(f, lease_duration=LEASE).pid == process.pid}
    for key in own:
        if (results / "trials" / f"{key}.json").exists():
            return "after a trial's record"
        if (results / "records" / f"{key}.json").exists():
            return "after a run's record"
        if any(results.glob(f"artifacts/*{key}.*")):
            return "between artifacts and record"
    return ["between runs", "in a run", "in a trial"][len(own)]


@pytest.mark.parametrize("victim", ["worker", "parent", "all"])
def test_of_workers(
    tmp_path: Path, sweep: Sweep, reference: Path, count: Callable[[str], None], victim: str
) -> None:
    """A worker of two; the process that sends them runs; and all. Orphans may still work."""
    results = tmp_path / "killed"
    written = Written(results)
    process = sweep.start(results, "--jobs", "2", lease=store.LEASE)
    worker = wait_for(functools.partial(workers, results, process))[0]
    time.sleep(random.uniform(0, 0.1))
    if victim == "all":
        kill(process)
    else:
        os.kill(worker if victim == "worker" else pid(process), signal.SIGKILL)
    code = ended(process)
    assert code in ((0, 1) if victim == "worker" else (0, -signal.SIGKILL)), said(results)
    assert "Traceback" not in said(results)
    written.look()
    kill(process)
    tidy(results)
    sweep.finish(results, lease=store.LEASE)
    written.look()
    assert_whole(results, reference)
    count(f"killed with two workers at work: {victim}, exit code {code}")
