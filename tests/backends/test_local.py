"""Worker processes of this machine: what dies takes nothing along, and nothing outlives a sweep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
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


FAILS = """
import builtins
from dataclasses import dataclass
from petlbench.methods.linear import Linear

@dataclass(frozen=True)
class Fails(Linear):
    def attach(self, backbone):
        if hasattr(builtins, "broken"):
            raise RuntimeError("an earlier run broke this process")
        builtins.broken = True
        raise RuntimeError("mine")
"""


def test_a_run_that_fails_leaves_nothing_to_the_next_ones(small: dict[str, Any]) -> None:
    """As an error of a GPU would be in its process for ever."""
    Path("fails.py").write_text(FAILS)
    api.run(**small | {"methods": ["./fails.py"], "seeds": 3, "jobs": 2})
    assert [r["error"]["message"] for r in recorded().values()] == ["mine"] * 3


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


def test_nobody_else_has_the_workers_of_a_sweep() -> None:
    """As where another thread begins one meanwhile."""
    sweep = apart.side_by_side([(_pid, ())] * 2, jobs=1, threads=1)
    own = {next(sweep)}
    others = set(apart.side_by_side([(_pid, ())], jobs=1, threads=1))
    own |= set(sweep)
    assert len(own) == 1 and not own & others


def test_workers_ignore_the_signals_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows has no SIGUSR1 and no SIGUSR2."""
    ignored: list[int] = []
    monkeypatch.setattr(apart, "_end_with", lambda parent: None)
    monkeypatch.setattr(signal, "signal", lambda number, _: ignored.append(number))
    apart._initialise(os.getpid())
    assert ignored == [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
    ignored.clear()
    monkeypatch.delattr(signal, "SIGUSR1")
    monkeypatch.delattr(signal, "SIGUSR2")
    apart._initialise(os.getpid())
    assert ignored == [signal.SIGINT, signal.SIGTERM]


def test_a_death_is_recorded_where_there_is_no_gpu(small: dict[str, Any]) -> None:
    """The command may be typed on another machine than that of the run."""
    made = plan.make(Request(**small))
    made.store.require_writable()
    there = replace(made.machine, device="cuda")
    assert apart.died(made.specs[0], made.store, there)[1:] == ("failed", DIED)
    ((key, record),) = recorded().items()
    assert key == made.specs[0].key and "environment" not in record


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
