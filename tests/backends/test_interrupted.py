"""Ctrl-C on every engine: the command ends, its processes too, and the same command goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from backends._sweeps import status
from petlbench import api

SLEEPS = '''
import os, time
from dataclasses import dataclass
from pathlib import Path
from petlbench.methods.linear import Linear as Base

@dataclass(frozen=True)
class Sleeps(Base):
    """Waits in mid-run until the file `awake` appears."""
    def attach(self, backbone):
        super().attach(backbone)
        here = Path(__file__)
        here.with_name(f"asleep-{os.getpid()}").touch()
        while not here.with_name("awake").exists():
            time.sleep(0.1)
'''
ENGINE = {"local": "joblib", "ray": "ray", "dask": "distributed"}


@pytest.mark.parametrize("backend", ENGINE)
def test_an_interrupted_sweep_leaves_no_process_and_goes_on(
    small: dict[str, Any], tmp_path: Path, backend: str
) -> None:
    if not find_spec(ENGINE[backend]):
        pytest.skip(f"{ENGINE[backend]} is not installed")
    (tmp_path / "sleeps.py").write_text(SLEEPS)
    words = ["run", "--tasks", "digits", "--checkpoint", small["checkpoint"], "--jobs", "2"]
    words += ["--threads", "1", "--device", "cpu", "--precision", "fp32", "--image-size", "16"]
    words += ["--epochs", "1", "--set", "protocol.warmup_epochs=0", "--results", small["results"]]
    words += ["--methods", "linear,./sleeps.py", "--backend", backend, "--attention", "explicit"]
    with subprocess.Popen(
        [sys.executable, "-m", "petlbench", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        _wait_until(lambda: _runners(tmp_path) and _records() == ["linear"])
        family = _descendants(process.pid)
        assert set(_runners(tmp_path)) <= family
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: every process is told
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert errors.strip().endswith("Finished runs are recorded; the same command goes on."), errors
    assert "Traceback" not in errors
    _wait_until(lambda: not any(_lives(each) for each in family))

    (tmp_path / "awake").touch()
    settings = small["settings"] | {"protocol.precision": "fp32"}
    request = small | {"methods": ["linear", "./sleeps.py"], "settings": settings}
    result = api.run(**request | {"attention": "explicit"})
    assert (result.done, result.failed) == (2, 0)
    assert status() == {"linear": "done", "sleeps": "done"}


def _runners(folder: Path) -> list[int]:
    return [int(file.name.partition("-")[2]) for file in folder.glob("asleep-*")]


def _records() -> list[str]:
    return list(status()) if Path("results/small/records").exists() else []


def _descendants(process: int) -> set[int]:
    parents = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {process}
    while more := {each for each, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {process}


def _lives(process: int) -> bool:
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except OSError:
        return False


def _wait_until(condition: Any) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
