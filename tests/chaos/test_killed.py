"""SIGKILL: before every step that a sweep takes on the disk, at random moments, and of workers."""

from __future__ import annotations

import functools
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from chaos.sweep import Sweep, Written, assert_whole, ended, kill, said
from petlbench import status
from petlbench.store import Store

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
