"""Worker processes of this machine: what dies takes nothing along, and nothing outlives a sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from backends._sweeps import DIED, assert_same_bits, mortal, recorded, status
from petlbench import apart, api, plan
from petlbench.errors import UsageError
from petlbench.request import Request


def test_a_run_that_is_killed_takes_no_neighbour_along(
    small: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    methods = ["bitfit", mortal(tmp_path, "run"), "linear"]
    result = api.run(**small | {"methods": methods, "jobs": 2})
    assert (result.done, result.failed) == (2, 1)
    assert f"failed: dies on digits, seed 0: {DIED}" in capsys.readouterr().err
    assert status() == {"bitfit": "done", "dies": "failed", "linear": "done"}
    (failed,) = (r for r in recorded().values() if r["status"] == "failed")
    assert (failed["error"]["type"], failed["error"]["message"]) == ("RunError", DIED)

    (tmp_path / "die").unlink()
    again = api.run(**small | {"methods": methods, "jobs": 2})
    assert (again.done, again.failed) == (3, 0)
    api.run(**small | {"methods": methods, "results": "one"})
    assert_same_bits("results/small", "one", 3)


def test_a_run_that_was_recorded_before_its_process_died_is_done(small: dict[str, Any]) -> None:
    made = plan.make(Request(**small))
    api.execute(made)
    spec = made.specs[0]
    assert apart.died(spec, made.store, made.machine) == (spec, "done", "")


def test_workers_stay_for_the_next_calls_and_one_that_died_meanwhile_is_replaced() -> None:
    def workers() -> set[int]:
        return set(apart.side_by_side([(_pid, ())] * 2, jobs=2, threads=1))

    first = workers()
    assert workers() == first and len(first) == 2
    victim = first.pop()
    os.kill(victim, signal.SIGKILL)
    while _lives(victim):
        time.sleep(0.01)
    time.sleep(0.2)
    second = workers()
    assert first < second and victim not in second
    assert set(apart.side_by_side([(_pid, ())] * 2, jobs=1, threads=1)) < second
    assert sum(map(_lives, second)) == 1  # no more than asked for


def test_calls_that_are_left_early_end_at_once() -> None:
    calls: list[Any] = [(_pid, ()), (time.sleep, (600,))]
    found = apart.side_by_side(calls, jobs=2, threads=1)
    next(found)
    begin = time.monotonic()
    found.close()
    assert time.monotonic() - begin < 60
    with pytest.raises(UsageError, match=r"a worker process died.*--jobs 1"):
        list(apart.side_by_side([(os._exit, (9,))], jobs=2, threads=1))


ORPHANS = """
import os, sys, time
from petlbench import apart

calls = [(os.getpid, ())] * 2 + [(time.sleep, (600,))]
if __name__ == "__main__":
    for call in apart.side_by_side(calls, jobs=2, threads=1):
        print(call, flush=True)
"""


def test_workers_do_not_outlive_a_parent_that_is_killed() -> None:
    """Neither one that is busy nor one that waits."""
    with subprocess.Popen(
        [sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
    end = time.monotonic() + 60
    while any(map(_lives, workers)):
        assert time.monotonic() < end
        time.sleep(0.1)


def _pid() -> int:
    time.sleep(0.5)  # long enough for the other worker to take the other call
    return os.getpid()


def _lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False
