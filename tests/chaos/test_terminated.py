"""SIGTERM, which schedulers send before they kill: a sweep ends in order, as at Ctrl-C."""

from __future__ import annotations

import contextlib
import functools
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from chaos.sweep import PATIENCE, Sweep, Written, assert_whole, ended, pid, said, wait_for, workers
from petlbench import experiment, store

TOLD = "petlbench: terminated. Finished runs are recorded; the same command goes on."
TERMINATED = 128 + signal.SIGTERM  # as a shell tells it


def hang(results: Path) -> None:
    """From now on a run takes longer than anybody waits."""

    def measure(*_: Any) -> Any:
        Path(f"{results}.running").touch()
        time.sleep(10 * PATIENCE)

    experiment.measure = measure


def test_in_a_run(tmp_path: Path, sweep: Sweep, reference: Path) -> None:
    results = tmp_path / "terminated"
    process = sweep.start(results, fault=functools.partial(hang, results))
    wait_for(Path(f"{results}.running").exists)
    assert list((results / "claims").iterdir())
    process.terminate()
    assert ended(process) == TERMINATED
    assert TOLD in said(results) and "Traceback" not in said(results)
    for folder in ("claims", "failed", "records", "trials", "artifacts"):
        assert not list((results / folder).iterdir())
    sweep.finish(results)
    assert_whole(results, reference)


def test_at_random_moments(
    tmp_path: Path, sweep: Sweep, reference: Path, count: Callable[[str], None]
) -> None:
    """One signal or several; the later ones find the sweep ending."""
    seed = int(os.environ.get("CHAOS_SEED", random.randrange(2**32)))
    print(f"CHAOS_SEED={seed}")  # shown where the test fails
    draw = random.Random(seed)
    codes: Counter[int] = Counter()
    for number in range(9):
        results = tmp_path / str(number)
        written = Written(results)
        process = sweep.start(results)
        wait_for(lambda: Path(f"{results}.log").exists() and said(results))  # noqa: B023
        time.sleep(draw.uniform(0, 0.5))
        for each in [signal.SIGTERM, *draw.choices([signal.SIGTERM, signal.SIGINT], k=number % 3)]:
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(pid(process), each)
            time.sleep(draw.uniform(0, 0.02))
        code = ended(process)
        codes[128 - code if code < 0 else code] += 1  # the last signal may meet a command's end
        if code == TERMINATED:
            assert TOLD in said(results)
        assert "Traceback" not in said(results)
        assert not list(results.rglob("*.part"))
        written.look()
        sweep.finish(results)
        written.look()
        assert_whole(results, reference)
    assert codes.keys() <= {TERMINATED, 0}, codes
    assert codes[TERMINATED] > 1
    count(f"SIGTERM at random moments (CHAOS_SEED={seed}): exit codes {dict(codes)}")


@pytest.mark.parametrize("to", ["parent", "all", "worker"])
def test_with_workers(tmp_path: Path, sweep: Sweep, to: str) -> None:
    """A worker leaves it to its parent, which tells the others."""
    long = Sweep(sweep.home, seeds=6)
    results = tmp_path / "terminated"
    process = long.start(results, "--jobs", "2", lease=store.LEASE)
    (worker, *_) = wait_for(functools.partial(workers, results, process))
    if to == "all":
        os.killpg(pid(process), signal.SIGTERM)
    else:
        os.kill(worker if to == "worker" else pid(process), signal.SIGTERM)
    assert ended(process) == (0 if to == "worker" else TERMINATED), said(results)
    assert (TOLD in said(results)) == (to != "worker")
    assert "Traceback" not in said(results)
    if to != "worker":
        wait_for(lambda: not alive(worker))
    assert not list(results.rglob("*.part"))
    long.finish(results, lease=store.LEASE)
    records, problems = store.Store(results).load()
    assert len(records) == long.runs and not problems


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_command(tmp_path: Path, sweep: Sweep) -> None:
    """As it is typed: `petlbench run`, and `kill`."""
    with subprocess.Popen(
        sweep.command(tmp_path / "typed"),
        env=sweep.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # it has planned
        process.terminate()
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == TERMINATED
    assert errors.endswith(f"\n{TOLD}\n") and "Traceback" not in errors
