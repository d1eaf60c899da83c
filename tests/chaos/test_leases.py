"""What stays of the dead, and clocks that jump: nobody waits for ever, nothing is made twice."""

from __future__ import annotations

import functools
import itertools
import json
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from conftest import CLI

from chaos.sweep import LEASE, PATIENCE, Sweep, Written, assert_whole, ended, kill, said, wait_for
from chaos.test_terminated import hang
from petlbench import store
from petlbench.errors import UsageError
from petlbench.store import Store

YEAR = 365 * 86400.0  # seconds


def hang_on(machine: str, results: Path) -> None:
    socket.gethostname = lambda: machine  # by which filelock tells whose claim it is
    hang(results)


def abandoned(sweep: Sweep, results: Path, fault: Callable[[], object], lease: float) -> None:
    """A sweep killed in its first run."""
    process = sweep.start(results, fault=fault, lease=lease)
    wait_for(Path(f"{results}.running").exists)
    kill(process)
    assert list(results.glob("claims/*.lease"))


def test_of_a_process_that_died_here(tmp_path: Path, sweep: Sweep, reference: Path) -> None:
    """Its claims are free at once."""
    results, long = tmp_path / "abandoned", 10 * PATIENCE
    abandoned(sweep, results, functools.partial(hang, results), long)
    assert ended(sweep.start(results, lease=long)) == 0, said(results)
    assert_whole(results, reference)


def test_of_a_machine_that_died(tmp_path: Path, sweep: Sweep, reference: Path) -> None:
    """Its claims are free when they were not renewed."""
    results, lease = tmp_path / "abandoned", 2.0
    abandoned(sweep, results, functools.partial(hang_on, "node7", results), lease)
    begin = time.monotonic()
    assert ended(sweep.start(results, lease=lease)) == 0, said(results)
    assert time.monotonic() - begin >= lease
    assert_whole(results, reference)


def test_torn_claims(tmp_path: Path, sweep: Sweep, reference: Path) -> None:
    """On every run and every trial one that was cut off somewhere, some time."""
    whole = marker(tmp_path)
    contents = [b"", whole[:10], whole[: len(whole) // 2], b"\xff\x00\n"]
    ages = [0.0, YEAR, -YEAR]
    results = tmp_path / "torn"
    keys = [file.stem for part in ("records", "trials") for file in (reference / part).iterdir()]
    kinds = list(itertools.product(contents, ages))
    assert len(keys) == len(kinds)
    for key, (content, age) in zip(keys, kinds, strict=True):
        write(results / "claims" / f"{key}.lease", content, age)
        write(results / "claims" / f"{key}.progress", content, age)
    for worker in range(3):
        write(results / "claims" / f"{socket.gethostname()}-{worker}.lock", b"", YEAR)
    assert ended(sweep.start(results, lease=0.5)) == 0, said(results)
    for lock in results.glob("claims/*.lock"):
        lock.unlink()  # nobody's: the system let go of them
    assert_whole(results, reference)


def test_a_claim_torn_at_any_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is taken over; or, where it reads as that of another version, it is named."""
    whole = marker(tmp_path)
    monkeypatch.setattr(store, "LEASE", 1.0)
    monkeypatch.setattr(store, "RENEWAL", 0.2)
    torn = Store(tmp_path)

    def claim(length: int) -> str:
        file = torn.claims / f"{length}.lease"
        write(file, whole[:length], 0.0)
        try:
            with torn.claim(file.stem, wait=True) as mine:
                return "mine" if mine else "not mine"
        except UsageError as error:
            return "named" if str(file) in str(error) else str(error)

    with ThreadPoolExecutor(64) as pool:
        found = list(pool.map(claim, range(len(whole))))
    assert set(found) == {"mine", "named"}
    assert found[: whole.index(b"duration")] == ["mine"] * whole.index(b"duration")


def marker(folder: Path) -> bytes:
    """What a claim of another machine looks like."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(socket, "gethostname", lambda: "node7")
        with Store(folder).claim("whole", wait=False):
            return (folder / "claims" / "whole.lease").read_bytes()


def write(file: Path, content: bytes, age: float) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    os.utime(file, (time.time() - age,) * 2)


def jump() -> None:
    """From now on the clock jumps whenever it is asked."""
    now, shifts = time.time, itertools.cycle([0.0, YEAR, -YEAR, 3600.0])
    time.time = lambda: now() + next(shifts)


def test_clocks_jump_while_two_sweeps_run(tmp_path: Path, sweep: Sweep, reference: Path) -> None:
    results = tmp_path / "jumping"
    written = Written(results)
    first, second = (sweep.start(results, fault=jump, lease=store.LEASE) for _ in range(2))
    while first.exitcode is None or second.exitcode is None:
        written.look()
        first.join(0.05)
    assert {ended(first), ended(second)} == {0}, said(results)
    assert_whole(results, reference)


def test_clocks_jump_between_sweeps(tmp_path: Path, sweep: Sweep, reference: Path) -> None:
    """All that was written is from the future, or of long ago; some of it was not finished."""
    results = tmp_path / "jumped"
    abandoned(sweep, results, functools.partial(hang, results), LEASE)
    written = Written(results)
    for shift in (YEAR, -YEAR):
        for file in [*results.rglob("*"), *sweep.cache.rglob("*")]:
            os.utime(file, (time.time() + shift,) * 2)
        sweep.finish(results)
        written = Written(results)
        written.look()
        assert_whole(results, reference)


@pytest.mark.parametrize("shift", [-YEAR, 0.0, YEAR])
@pytest.mark.parametrize("process", [0, -1, 1, 2**22, 2**31, 10**30])
def test_status_reads_what_is_left(cli: CLI, tmp_path: Path, shift: float, process: int) -> None:
    """Lines of progress with any process and any time; they are no reason for a traceback."""
    results = Store(tmp_path / "left")
    results.require_writable()
    node = os.uname().nodename
    now = time.time()
    for number, since in enumerate([0.0, now + shift, 1e300, -1e300]):
        told = json.dumps(["lora on shapes, seed 0", "epoch 1/2", node, process, since])
        write(results.claims / f"{number}.progress", f"line\n{told}\n".encode(), shift)
    for number, text in enumerate(["", "{", "line\n[]\n", "line\nnull", "line\n[1, 2, 3, 4, 5]"]):
        write(results.claims / f"torn{number}.progress", text.encode(), shift)
    told = cli("status", "--results", results.folder)
    assert told.code == 0 and "0 done" in told.out and not told.err
    assert told.out.count("lora on shapes") == 4
