"""Fixtures: an isolated cache, a VTAB-1K folder of tiny images, a checkpoint, the command line."""

from __future__ import annotations

import os
import signal

# A shell's background jobs ignore Ctrl-C, and their children inherit that: tests of it need it.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before torch is imported, here and in subprocesses: one thread, and never the network.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # waiting threads must not fight for cores
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from PIL import Image

import petlbench

# a busy machine is no failure: timings are for benchmarks
hypothesis.settings.register_profile("busy", deadline=None)
hypothesis.settings.load_profile("busy")

# subprocesses run elsewhere and must find the very same package
_root = str(Path(petlbench.__file__).resolve().parents[1])
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_root, os.environ.get("PYTHONPATH")]))

SIZES = {"train800": 800, "val200": 200, "train800val200": 1000, "test": 40}
COLOURS = np.random.default_rng(0).integers(0, 256, size=(10, 3))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have counted (tests/chaos), also in processes of pytest-xdist."""
    reports = [r for each in terminalreporter.stats.values() for r in each]
    told = [r.user_properties for r in reports if getattr(r, "when", "") == "call"]
    if lines := [text for properties in told for name, text in properties if name == "counted"]:
        terminalreporter.section("counted")
        terminalreporter.write_line("\n".join(lines))


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the user's cache, datasets or results."""
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("PETLBENCH_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "160")  # the longest temporary path must not wrap a table
    monkeypatch.chdir(tmp_path)


MakeTask = Callable[..., Path]


@pytest.fixture
def make_task() -> MakeTask:
    """Write one task in the VTAB-1K layout: 20 images of 8 px, listed again and again."""

    def make(root: Path, task: str, sizes: dict[str, int] = SIZES, classes: int = 10) -> Path:
        folder = root / task
        (folder / "images").mkdir(parents=True)
        noise = np.random.default_rng(1)
        paths = []
        for index in range(20):
            pixels = COLOURS[index % 10] + noise.integers(-20, 20, size=(8, 8, 3))
            paths.append(f"images/{index:02} of 20.png")  # names with spaces are allowed
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / paths[-1])
        for split, count in sizes.items():
            lines = [f"{paths[i % 20]} {i % 10 % classes}\n" for i in range(count)]
            (folder / f"{split}.txt").write_text("".join(lines))
        return folder

    return make


@pytest.fixture
def vtab_root(tmp_path: Path, make_task: MakeTask) -> Path:
    """A data root with two of VTAB-1K's tasks."""
    for task in ("cifar", "dtd"):
        make_task(tmp_path / "vtab-1k", task)
    return tmp_path / "vtab-1k"


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state dict for the embedded architecture at 16 px, random but always the same."""
    import torch
    from safetensors.torch import save_file

    from petlbench import weights

    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "mini16.safetensors"
    save_file(weights.create("vit_mini", 16).state_dict(), file)
    return file


@pytest.fixture
def small(checkpoint: Path) -> dict[str, Any]:
    """Arguments of `petlbench.run` for a run of a third of a second."""
    return {
        "tasks": ["digits"],
        "methods": ["linear"],
        "checkpoint": str(checkpoint),
        "settings": {
            "protocol.image_size": 16,
            "protocol.epochs": 1,
            "protocol.warmup_epochs": 0,
        },
        "results": "results/small",
        "jobs": 1,
        "threads": 1,
        "device": "cpu",
    }


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit code and what it printed."""

    code: int
    out: str
    err: str

    def refused(self, *parts: str) -> None:
        """Bad input: exit code 2, one screen, no traceback, and every part is named."""
        assert self.code == 2, self
        assert self.err.startswith("petlbench: ")
        assert len(self.err.splitlines()) <= 25
        assert "Traceback" not in self.err
        for part in parts:
            assert part in self.err, (part, self.err)


CLI = Callable[..., Outcome]


@pytest.fixture
def cli(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, checkpoint: Path
) -> CLI:
    """`petlbench ...` in this process; `small=True` adds the arguments of a very short run."""
    from petlbench import cli as command_line
    from petlbench import speed

    # measuring takes longer than the runs; test_speed.py tests it
    monkeypatch.setattr(speed, "measure_speed", lambda *_: speed.Speed(0.1, 0, 1e-3, 1e-4))
    monkeypatch.setattr(speed, "startup", lambda: 1.0)

    def call(*arguments: str | Path, small: bool = False) -> Outcome:
        words = [str(argument) for argument in arguments]
        if small:
            given = {word.partition("=")[0] for word in words}
            defaults = {
                "--tasks": "digits",
                "--methods": "linear",
                "--checkpoint": str(checkpoint),
                "--image-size": "16",
                "--epochs": "1",
                "--jobs": "1",
                "--threads": "1",
                "--device": "cpu",
                "--results": "results/small",
            }
            for option, value in defaults.items():
                if option not in given:
                    words += [option, value]
            words += ["--set", "protocol.warmup_epochs=0"]
        capsys.readouterr()
        with pytest.raises(SystemExit) as raised:
            command_line.main(words)
        printed = capsys.readouterr()
        assert isinstance(raised.value.code, int)
        return Outcome(raised.value.code, printed.out, printed.err)

    return call
