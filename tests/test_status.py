"""What `petlbench status` tells of a folder: by hand-made files, and of a run in flight."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic

from petlbench import progress, status
from petlbench.errors import UsageError
from petlbench.progress import Reporter
from petlbench.store import Store

CLI = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two finished runs of three."""
    return Store(synthetic.write(tmp_path / "results" / "one", RECORDS[:2], keep=False))


RECORDS = synthetic.records(1, 1, 3)
THIRD = RECORDS[2]["key"]


def fail(store: Store, record: dict[str, Any], message: str) -> None:
    told = {name: record[name] for name in ("schema", "key", "fingerprint", "spec")}
    error = {"type": "RunError", "message": message, "traceback": "..."}
    store.failed.mkdir(exist_ok=True)
    file = store.failed / f"{record['key']}.json"
    file.write_text(json.dumps(told | {"status": "failed", "error": error}))


def start(store: Store, key: str, host: str = "", process: int = 0, since: float = 0.0) -> Path:
    store.claims.mkdir(exist_ok=True)
    told = [
        *("lora on cifar, seed 2", "epoch 3/12 loss 1.2"),
        *(host or platform.node(), process or os.getpid(), since or time.time()),
    ]
    file = store.claims / f"{key}.progress"
    file.write_text(f"lora on cifar, seed 2: epoch 3/12 loss 1.2\n{json.dumps(told)}\n")
    return file


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_is_done(store: Store) -> None:
    found = status.read(store)
    assert found.done == {record["key"] for record in RECORDS[:2]}
    assert (found.running, found.stopped, found.failed, found.waiting) == ([], [], {}, None)
    found = status.read(store, {record["key"] for record in RECORDS[1:]})
    assert (len(found.done), found.waiting) == (1, 1)
    assert status.read(store, {RECORDS[0]["key"]}, peek=True).waiting == 1


def test_a_damaged_record_is_not_done(store: Store) -> None:
    (store.records / f"{RECORDS[0]['key']}.json").write_text("{")
    assert status.read(store).done == {RECORDS[1]["key"]}


def test_who_is_running_what(store: Store) -> None:
    start(store, THIRD, since=1000.0)
    found = status.read(store, {record["key"] for record in RECORDS})
    (run,) = found.running
    assert (run.key, run.pid, found.waiting) == (THIRD, os.getpid(), 0)
    text = "\n".join(status.lines(found, store.folder, now=1000.0 + 600))
    assert "2 done, 1 running, 0 failed, 0 waiting" in text
    assert f"lora on cifar, seed 2: epoch 3/12 loss 1.2 ({platform.node()}, process" in text
    assert "for 10 min" in text and "last heard" not in text


def test_one_whose_process_died_is_not_running(store: Store) -> None:
    start(store, THIRD, process=dead_process())
    found = status.read(store, {record["key"] for record in RECORDS})
    assert (found.running, [run.key for run in found.stopped]) == ([], [THIRD])
    assert found.waiting == 1  # it is to be run again
    assert "1 stopped half-way" in status.lines(found, store.folder)[0]


def test_one_whose_process_died_and_that_has_failed_is_told_once(store: Store) -> None:
    fail(store, RECORDS[2], "the process of this run died")
    start(store, THIRD, process=dead_process())
    found = status.read(store, {record["key"] for record in RECORDS})
    assert (found.stopped, found.failures, found.waiting) == ([], 1, 0)


def test_of_another_machine_it_is_told_when_it_was_heard_of(store: Store) -> None:
    file = start(store, THIRD, host="another", process=dead_process(), since=1000.0)
    os.utime(file, (2000.0, 2000.0))
    found = status.read(store)
    assert [run.key for run in found.running] == [THIRD]
    (line,) = status.lines(found, store.folder, now=2000.0 + 300)[1:]
    assert "another" in line and "last heard of 5 min ago" in line


def test_what_a_killed_process_left_of_a_recorded_run_is_not_running(store: Store) -> None:
    start(store, RECORDS[0]["key"])
    assert status.read(store).running == []


@pytest.mark.parametrize("text", ["", "lora: epoch 1/2", "lora\n[1, 2]\n", "lora\n{}\n"])
def test_other_files_among_the_claims(store: Store, text: str) -> None:
    start(store, THIRD).write_text(text)
    with pytest.raises(ValueError):
        progress.parse(text)
    assert status.read(store).running == []


def test_failures_are_told_by_reason(store: Store) -> None:
    for record in synthetic.records(1, 1, 7)[3:]:
        fail(store, record, "cannot decode\nimage a.jpg")
    fail(store, RECORDS[2], "training diverged")
    fail(store, RECORDS[0], "done since")
    found = status.read(store)
    assert {reason: len(names) for reason, names in found.failed.items()} == {
        "RunError: cannot decode image a.jpg": 4,
        "RunError: training diverged": 1,
    }
    _, first, second = status.lines(found, store.folder)
    assert "and 2 more: RunError: cannot decode image a.jpg" in first
    assert "training diverged" in second and "more" not in second


def test_no_name_begins_a_line_of_its_own(store: Store) -> None:
    file = start(store, THIRD)
    told = json.loads(file.read_text().splitlines()[1])
    told[0] = "lora on cifar\nresults/two: 9 done"
    file.write_text(f"starting\n{json.dumps(told)}\n")
    _, running = status.lines(status.read(store), store.folder)
    assert "lora on cifar results/two: 9 done" in running


def test_one_that_is_tried_again_has_not_failed(store: Store) -> None:
    fail(store, RECORDS[2], "training diverged")
    start(store, THIRD)
    found = status.read(store, {record["key"] for record in RECORDS})
    assert (found.failures, len(found.running), found.waiting) == (0, 1, 0)


def test_the_command(store: Store, cli: CLI) -> None:
    start(store, THIRD)
    for folder in ("results", "results/one"):
        told = cli("status", "--results", folder)
        assert told.code == 0 and "2 done, 1 running, 0 failed" in told.out
    cli("status", "--results", "nowhere").refused("nowhere", "--results DIR")
    with pytest.raises(UsageError):
        status.folders("nowhere")


def test_nothing_is_finished_yet(tmp_path: Path, cli: CLI) -> None:
    store = Store(tmp_path / "results" / "new")
    store.require_writable()
    reporter = Reporter(store.claims / f"{THIRD}.progress", "lora on cifar, seed 2")
    reporter("starting")
    told = cli("status")
    assert "0 done, 1 running" in told.out and "lora on cifar, seed 2: starting" in told.out


def test_of_a_plan_it_tells_what_waits_and_for_how_long(cli: CLI) -> None:
    more = ("--seeds", "3")
    told = cli("status", *more, small=True)
    assert told.code == 0 and "0 done, 0 running, 0 failed, 3 waiting" in told.out
    assert "left" not in told.out  # nothing tells how long
    cli("run", small=True)
    told = cli("status", *more, small=True)
    assert "1 done, 0 running, 0 failed, 2 waiting, about" in told.out
    assert "left, 1 at a time" in told.out
    cli("run", *more, small=True)
    told = cli("status", *more, small=True)
    assert "3 done, 0 running, 0 failed, 0 waiting" in told.out and "left" not in told.out


def test_it_does_without_torch(store: Store) -> None:
    script = (
        "import sys; from petlbench import cli\n"
        "try: cli.main(['status', '--results', sys.argv[1]])\n"
        "except SystemExit: assert 'torch' not in sys.modules"
    )
    told = subprocess.run(
        [sys.executable, "-c", script, str(store.folder)], capture_output=True, text=True
    )
    assert told.returncode == 0 and "2 done" in told.stdout, told.stderr


def test_a_live_run_is_watched_until_it_ends(store: Store) -> None:
    """By a process of its own: the run of another process appears and is seen to end."""
    script = (
        "import sys, time, pathlib; from petlbench.progress import Reporter\n"
        "reporter = Reporter(pathlib.Path(sys.argv[1]), 'lora on cifar, seed 2')\n"
        "reporter('epoch 1/2')\n"
        "print('running', flush=True); sys.stdin.read(); reporter.close()"
    )
    store.claims.mkdir()
    file = store.claims / f"{THIRD}.progress"
    worker = subprocess.Popen(
        [sys.executable, "-c", script, str(file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin is not None and worker.stdout is not None
    assert worker.stdout.readline() == "running\n"
    watching = subprocess.Popen(
        [sys.executable, "-m", "petlbench", "status", "--results", store.folder, "--watch"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watching.stdout is not None
    assert "2 done, 1 running" in watching.stdout.readline()
    assert f"process {worker.pid}" in watching.stdout.readline()
    worker.stdin.close()
    assert worker.wait() == 0
    rest = watching.stdout.read()
    assert watching.wait() == 0 and "2 done, 0 running" in rest
