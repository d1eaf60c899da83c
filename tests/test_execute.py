"""Many runs: the same numbers however they are spread, and nothing lost when they stop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from petlbench import api, execute, experiment, plan
from petlbench.errors import RunError, UsageError
from petlbench.experiment import Machine
from petlbench.problems import classification
from petlbench.progress import Display
from petlbench.request import Request
from petlbench.store import Record, Store

TWO: dict[str, Any] = {"methods": ["convpass"], "seeds": 2}


def results(folder: str) -> dict[str, tuple[Record, dict[str, np.ndarray]]]:
    """Key -> record and the kept predictions, of every run in `folder`."""
    store = Store(folder)
    records, problems = store.load()
    assert problems == []
    return {
        r["key"]: (r, dict(np.load(store.artifacts / f"{r['key']}.predictions.npz")))
        for r in records
    }


def weights(folder: str) -> dict[str, bytes]:
    return {f.name: f.read_bytes() for f in (Path(folder) / "artifacts").glob("*.safetensors")}


def test_two_workers_give_the_same_bits_as_one(small: dict[str, Any]) -> None:
    api.run(**small | TWO | {"results": "one"})
    api.run(**small | TWO | {"results": "two", "jobs": 2})
    one, two = results("one"), results("two")
    assert len(one) == 2 and one.keys() == two.keys()
    for key, (record, kept) in one.items():
        other, others = two[key]
        assert np.array_equal(kept["predictions"], others["predictions"])
        for field in ("test", "train_loss", "parameters", "stored_bytes", "spec", "data"):
            assert record[field] == other[field]
        assert record["environment"]["threads"] == other["environment"]["threads"] == 1
    assert weights("one") == weights("two")  # to the last bit


def test_another_number_of_threads_agrees_closely(small: dict[str, Any]) -> None:
    """Stated tolerance: losses to 1e-4 relative, at most 1% of the predictions."""
    settings = small["settings"] | {"protocol.batch_size": 100}
    request = small | {"methods": ["lora"], "settings": settings}
    for threads in (1, 2):
        api.run(**request | {"threads": threads, "results": f"t{threads}"})
    ((record, kept),) = results("t1").values()
    ((other, others),) = results("t2").values()
    assert (record["environment"]["threads"], other["environment"]["threads"]) == (1, 2)
    assert record["key"] == other["key"]
    assert other["train_loss"] == pytest.approx(record["train_loss"], rel=1e-4)
    assert (kept["predictions"] != others["predictions"]).mean() <= 0.01


def test_the_order_of_runs_does_not_matter(small: dict[str, Any]) -> None:
    """A run starts from its seed, not from where the last one left the random numbers."""
    api.run(**small | {"methods": ["bitfit", "lora"], "results": "ab"})
    api.run(**small | {"methods": ["lora", "bitfit"], "results": "ba"})
    assert weights("ab") == weights("ba") != {}


BREAKS = '''
from dataclasses import dataclass
from pathlib import Path
from petlbench.methods.linear import Linear as Base

@dataclass(frozen=True)
class Breaks(Base):
    """Fails until the file `fixed` appears."""
    def attach(self, backbone):
        super().attach(backbone)
        if not Path(__file__).with_name("fixed").exists():
            raise ValueError("attach of breaks.py failed")
'''


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_run_is_recorded_and_retried(
    small: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], jobs: int
) -> None:
    (tmp_path / "breaks.py").write_text(BREAKS)
    request = small | {"methods": ["./breaks.py", "linear"], "jobs": jobs}
    result = api.run(**request)
    assert (result.done, result.failed) == (1, 1)
    assert "failed: breaks on digits, seed 0: attach of breaks.py failed" in capsys.readouterr().err
    (file,) = Path("results/small/failed").iterdir()
    record = json.loads(file.read_text())
    assert record["status"] == "failed"
    assert (record["error"]["type"], record["key"]) == ("ValueError", file.stem)
    assert "breaks.py" in record["error"]["traceback"]
    assert "raise ValueError" in record["error"]["traceback"]
    assert result.board is not None
    ranks = {row.method: row.rank for row in result.board.rows}
    assert ranks == {"linear": 1, "breaks": None}

    (tmp_path / "fixed").touch()
    assert plan.make(Request(**request)).failed == 1
    again = api.run(**request)
    assert (again.done, again.failed) == (2, 0)
    assert not list(Path("results/small/failed").iterdir())


COMMAND = """
import sys, time
from pathlib import Path
from petlbench import experiment, plots
from petlbench.cli import main

# the plot takes longer than the runs and is tested elsewhere
plots.draw = lambda *_: None

original = experiment.measure

def slow(spec, machine, on_progress):
    with open("started.txt", "a") as file:
        file.write(spec.key + "\\n")
    if Path("slow").exists() and Path("started.txt").read_text().count("\\n") > 1:
        time.sleep(60)
    time.sleep(float(Path("pause").read_text()) if Path("pause").exists() else 0)
    return original(spec, machine, on_progress)

experiment.measure = slow
main(sys.argv[1:])
"""


def command(small: dict[str, Any], *more: str) -> list[str]:
    """The arguments of `small` as a command in a process of its own."""
    arguments = ["run", "--tasks", "digits", "--checkpoint", small["checkpoint"], "--jobs", "1"]
    arguments += ["--threads", "1", "--device", "cpu", "--image-size", "16", "--epochs", "1"]
    arguments += ["--set", "protocol.warmup_epochs=0", "--results", small["results"], *more]
    return [sys.executable, "-c", COMMAND, *arguments]


def started() -> list[str]:
    return Path("started.txt").read_text().split() if Path("started.txt").exists() else []


def wait_until(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_interrupting_loses_only_the_runs_in_flight(small: dict[str, Any]) -> None:
    three = ["--methods", "linear", "--seeds", "3"]
    Path("slow").touch()  # the second run takes a minute
    with subprocess.Popen(
        command(small, *three), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        wait_until(lambda: len(started()) == 2)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "interrupted. Finished runs are recorded; the same command goes on." in errors
    assert "Traceback" not in errors
    folder = Path(small["results"])
    assert [f.stem for f in (folder / "records").iterdir()] == started()[:1]
    assert not list((folder / "failed").iterdir())
    assert not list((folder / "claims").glob("*.progress"))

    Path("slow").unlink()
    Path("started.txt").unlink()
    settings = small["settings"]
    result = api.run(**small | {"seeds": 3, "settings": settings})
    assert (result.done, result.failed) == (3, 0)
    assert len(list((folder / "records").iterdir())) == 3


def test_a_killed_process_leaves_nothing_that_blocks(small: dict[str, Any]) -> None:
    Path("slow").touch()
    Path("started.txt").write_text("earlier\n")
    with subprocess.Popen(command(small, "--methods", "linear"), stdout=subprocess.PIPE) as process:
        wait_until(lambda: len(started()) == 2)
        process.kill()
        process.wait(timeout=30)
    result = api.run(**small)
    assert (result.done, result.failed) == (1, 0)


def test_two_processes_share_the_work(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = experiment.measure

    def slow(spec: Any, machine: Any, on_progress: Any) -> Any:
        with Path("started.txt").open("a") as file:
            file.write(f"{spec.key}\n")
        here.append(spec.key)
        time.sleep(0.3)
        return measure(spec, machine, on_progress)

    here: list[str] = []
    monkeypatch.setattr(experiment, "measure", slow)
    Path("pause").write_text("0.3")
    arguments = command(small, "--methods", "linear", "--seeds", "5")
    with subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as other:
        wait_until(started)
        result = api.run(**small | {"seeds": 5})
        _, errors = other.communicate(timeout=60)
    assert (other.returncode, result.failed) == (0, 0), errors
    assert len(started()) == len(set(started())) == 5  # each exactly once
    assert 0 < len(here) < 5  # and both took part
    records, problems = Store(small["results"]).load()
    assert len(records) == 5 and problems == []
    assert set(started()) == {record["key"] for record in records}


def test_a_run_that_another_process_finished_is_not_run(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan.make(Request(**small | {"seeds": 2}))
    api.execute(made)
    monkeypatch.setattr(execute, "run", lambda *_: pytest.fail("run again"))
    outcome = execute.execute(
        made.specs, made.store, Machine(), Display(made.store.claims, 2, False)
    )
    assert set(outcome.values()) == {"done"} and len(outcome) == 2


def test_the_first_record_counts_where_two_made_the_same_run(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a pause in which the claim went to another machine."""
    measure = experiment.measure

    def overtaken(spec: Any, machine: Any, on_progress: Any) -> Any:
        monkeypatch.setattr(experiment, "measure", measure)
        experiment.run(spec, made.store, made.machine)
        first.append(made.store.read(spec.key))
        return measure(spec, machine, on_progress)

    first: list[Record | None] = []
    made = plan.make(Request(**small))
    monkeypatch.setattr(experiment, "measure", overtaken)
    result = api.execute(made)
    assert (result.done, result.failed) == (1, 0)
    assert [made.store.read(made.specs[0].key)] == first != [None]
    kept = [f.stat().st_mtime for f in made.store.artifacts.iterdir()]
    assert len(kept) == 2  # and they are those of that record
    assert max(kept) <= (made.store.records / f"{made.specs[0].key}.json").stat().st_mtime


def test_a_result_that_cannot_be_written_stops_with_a_message(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with (
        monkeypatch.context() as patched,
        pytest.raises(UsageError, match=r"cannot be written: No space left on device"),
    ):
        patched.setattr(os, "fsync", full)
        api.run(**small)
    left = [file for file in Path("results").rglob("*") if file.is_file()]
    assert all(file.parent.name == "claims" for file in left)


def test_a_list_that_changed_since_planning_fails_the_run(
    vtab_root: Path, small: dict[str, Any]
) -> None:
    request = small | {"suite": "vtab-1k", "tasks": ["dtd"], "data_root": str(vtab_root)}
    made = plan.make(Request(**request, backbone="vit_mini", seeds=1))
    file = vtab_root / "dtd" / "train800val200.txt"
    file.write_text(file.read_text().replace(" 3\n", " 4\n"))
    result = api.execute(made)
    assert result.failed == 1
    record = json.loads(next(made.store.failed.iterdir()).read_text())
    assert "the list of dtd/train800val200 changed" in record["error"]["message"]


def test_the_test_split_is_opened_once_and_last(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    load, train = experiment.cache.load, classification.train

    def loading(split: Any, *arguments: Any) -> Any:
        events.append(split.name)
        return load(split, *arguments)

    def training(*arguments: Any) -> Any:
        events.append("training")
        return train(*arguments)

    monkeypatch.setattr(experiment.cache, "load", loading)
    monkeypatch.setattr(classification, "train", training)
    api.run(**small)
    assert events == ["trainval", "training", "test"]


def test_workers_take_a_gpu_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each list stands for the memory of one worker process."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    store = Store(tmp_path)
    store.require_writable()
    processes: list[list[Any]] = [[], [], []]
    given = []
    for worker in (0, 1, 2, 0):
        monkeypatch.setattr(execute, "_held", processes[worker])
        given.append(execute._own_device(store, jobs=3))
    assert given == ["cuda:0", "cuda:1", "cuda:0", "cuda:0"]
    monkeypatch.setattr(execute, "_held", [])
    with monkeypatch.context() as patched, pytest.raises(RunError, match="more than 3 workers"):
        patched.setattr(execute, "PATIENCE", 0.0)
        execute._own_device(store, jobs=3)
    # that worker died, and a little later what it had started; its successor gets its GPU
    threading.Timer(1.0, processes[1].pop().release).start()
    assert execute._own_device(store, jobs=3) == "cuda:1"
    monkeypatch.setattr(execute, "_held", [])
    monkeypatch.setattr(execute.platform, "node", lambda: "another-machine")
    assert execute._own_device(store, jobs=3) == "cuda:0"  # of that machine


def test_workers_that_are_used_again_write_to_the_right_folder(
    small: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """joblib keeps its workers, and they keep the working directory that they started in."""
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        result = api.run(**small | {"seeds": 2, "jobs": 2, "results": "here"})
        assert (result.done, result.failed) == (2, 0)
        assert len(list((tmp_path / name / "here" / "records").glob("*.json"))) == 2
