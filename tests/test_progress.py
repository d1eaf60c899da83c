"""Progress passes between processes through small files, and costs little."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path

import pytest

from petlbench import progress
from petlbench.progress import Display, Reporter


def test_a_reporter_writes_and_removes_its_line(tmp_path: Path) -> None:
    reporter = Reporter(tmp_path / "a.progress", "lora on cifar, seed 0")
    reporter("epoch 1/12 loss 2.0")
    label, message, host, process, since = progress.parse(reporter.file.read_text())
    assert (label, message) == ("lora on cifar, seed 0", "epoch 1/12 loss 2.0")
    assert (host, process) == (platform.node(), os.getpid())
    assert 0 <= time.time() - since < 60
    assert progress._read(tmp_path, 0) == {
        "a.progress": ("lora on cifar, seed 0: epoch 1/12 loss 2.0", 1, 12)
    }
    reporter.close()
    assert progress._read(tmp_path, 0) == {}
    reporter.close()


def test_it_writes_at_most_once_per_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    reporter = Reporter(tmp_path / "a.progress", "run")
    reporter("epoch 1/9")
    reporter("epoch 2/9")
    assert progress.parse(reporter.file.read_text())[1] == "epoch 1/9"
    now[0] += progress.INTERVAL
    reporter("epoch 3/9")
    assert progress.parse(reporter.file.read_text())[1] == "epoch 3/9"


def test_a_full_disk_does_not_stop_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    reporter = Reporter(tmp_path / "file" / "a.progress", "run")
    reporter("epoch 1/9")
    reporter.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("run: epoch 3/12 loss 1.5", (3, 12)),
        ("run: decoding train 10/1000", (10, 1000)),
        ("run: starting", (0, 1)),
        ("", (0, 1)),
        ("./mine.py on cifar: epoch 3/12", None),  # not a fraction: not shown, not fatal
        ("run: 1/0", (1, 0)),
    ],
)
def test_lines_are_read(tmp_path: Path, text: str, expected: tuple[int, int] | None) -> None:
    (tmp_path / "a.progress").write_text(text)
    lines = progress._read(tmp_path, 0)
    assert lines == ({"a.progress": (text, *expected)} if expected else {})


def test_lines_of_dead_processes_and_other_files_are_ignored(tmp_path: Path) -> None:
    (tmp_path / "a.lock").write_text("1/2")
    (tmp_path / "b.progress").write_text("1/2")
    os.utime(tmp_path / "b.progress", (1000, 1000))
    (tmp_path / "c.progress").mkdir()
    assert progress._read(tmp_path, time.time()) == {}


def test_it_is_quiet_when_not_on_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    display = Display(tmp_path, total=2)
    assert not display.enabled
    with display.live():
        display.advance()
    assert capsys.readouterr() == ("", "")


def test_failures_are_told_even_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    display = Display(tmp_path, total=1)
    with display.live():
        display.message("failed: lora on cifar: [red]no[/red]")
    printed = capsys.readouterr()
    assert printed.out == "" and "failed: lora on cifar: [red]no[/red]" in printed.err


def test_it_shows_runs_of_other_processes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "INTERVAL", 0.02)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich animates only where it may move the cursor
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    display = Display(tmp_path, total=3, enabled=True)
    with display.live():
        for step in (1, 4):
            (tmp_path / "a.progress").write_text(f"lora on cifar: epoch {step}/9")
            time.sleep(0.3)
        (tmp_path / "a.progress").unlink()
        display.advance()
        time.sleep(0.1)
        assert [task.description for task in display.progress.tasks] == ["runs"]
        assert display.progress.tasks[0].completed == 1
    assert "lora on cifar: epoch 4/9" in capsys.readouterr().err
