"""Results of several machines in one folder: nothing is lost, mixed up or half there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import synthetic
from conftest import CLI

from petlbench import merge as merging
from petlbench import results
from petlbench.merge import Conflict, merge
from petlbench.record import Record
from petlbench.spec import identify
from petlbench.store import Store

RECORDS = synthetic.records(methods=2, tasks=2, seeds=2)


def of_seed(seed: int) -> list[Record]:
    return [record for record in RECORDS if record["spec"]["seed"] == seed]


def failed(record: Record) -> Record:
    kept = {name: record[name] for name in ("schema", "key", "fingerprint", "spec", "started")}
    error = {"type": "RunError", "message": "no", "traceback": ""}
    return kept | {"status": "failed", "error": error}


def changed(record: Record, **spec: Any) -> Record:
    """Another run, with the key that belongs to it."""
    made = record | {"spec": record["spec"] | spec}
    key, fingerprint = identify(made["spec"])
    return made | {"key": key, "fingerprint": fingerprint}


def content(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.suffix != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """A folder of each of two machines."""
    made = (tmp_path / "one", tmp_path / "two")
    for seed, folder in enumerate(made):
        synthetic.write(folder, of_seed(seed))
    return made


def test_two_machines_make_one_board(two: tuple[Path, Path], tmp_path: Path) -> None:
    before = [content(folder) for folder in two]
    into = tmp_path / "deeper" / "all"
    merged = merge(two, into)
    assert (merged.finished, merged.artifacts, merged.new) == (8, 8, 16)
    assert [content(folder) for folder in two] == before
    assert content(into).keys() == before[0].keys() | before[1].keys()
    ((found,), problems) = results.load(into)
    assert not problems and found.board.rows == synthetic.results(RECORDS).board.rows
    assert found.predictions(RECORDS[0]["key"], RECORDS[0]["spec"]["task"]) is not None
    assert merge(two, into).new == 0
    assert merge([into], into).new == 0


def test_the_folder_may_have_results_already(two: tuple[Path, Path]) -> None:
    assert merge([two[0]], two[1]).new == 8
    assert len(Store(two[1]).load()[0]) == 8
    with pytest.raises(Conflict):
        synthetic.write(two[0], [of_seed(1)[0] | {"train_seconds": 1.0}])
        merge([two[0]], two[1])


def test_folders_of_folders_and_lines_are_sources(two: tuple[Path, Path], tmp_path: Path) -> None:
    lines = tmp_path / "committed" / "records.jsonl"
    lines.parent.mkdir()
    lines.write_text("".join(json.dumps(record) + "\n" for record in of_seed(1)) + '{"cut')
    merged = merge([tmp_path], tmp_path / "all")  # one, two and committed
    assert merged.finished == 8
    (problem,) = merged.problems
    assert "records.jsonl, line 5, cannot be read" in problem and "left out" in problem
    alone = merge([lines], tmp_path / "alone")
    assert (alone.finished, alone.artifacts) == (4, 0)
    assert merge([lines.parent], tmp_path / "alone").new == 0


def refused(sources: tuple[Path, ...], into: Path, *words: str) -> None:
    with pytest.raises(Conflict) as caught:
        merge(sources, into)
    assert all(word in str(caught.value) for word in words), caught.value
    assert not into.exists()


def test_a_run_that_finished_twice_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    record = of_seed(0)[0]
    synthetic.write(two[1], [record])
    assert merge(two, tmp_path / "same").finished == 8  # the very same record
    synthetic.write(two[1], [record | {"train_seconds": 1.5}])
    name = f"records/{record['key']}.json"
    files = (str(two[0] / name), str(two[1] / name))
    refused(two, tmp_path / "all", "linear on cifar seed 0 finished twice", "train_seconds", *files)


def test_a_run_under_two_keys_is_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    record = of_seed(0)[0]
    other = changed(record, members={"train": "0" * 64})
    synthetic.write(two[1], [other])
    files = [str(two[i] / "records" / f"{r['key']}.json") for i, r in ((0, record), (1, other))]
    refused(two, tmp_path / "all", "under two keys", *files)


def test_other_predictions_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    record = of_seed(0)[0]
    synthetic.write(two[1], [record])
    file = two[1] / "artifacts" / f"{record['key']}.predictions.npz"
    file.write_bytes(file.read_bytes() + b"0")
    refused(two, tmp_path / "all", str(file))


def test_other_data_are_refused(two: tuple[Path, Path], tmp_path: Path) -> None:
    record = of_seed(1)[0]
    synthetic.write(two[1], [record | {"data": record["data"] | {"test": "other"}}])
    with pytest.raises(ValueError, match="test data differ"):
        merge(two, tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_finished_counts_more_than_failed(two: tuple[Path, Path], tmp_path: Path) -> None:
    done = of_seed(0)[0]
    Store(two[1]).write(failed(done))
    for sources in (two, two[::-1]):
        merged = merge(sources, tmp_path / sources[0].name / "all")
        assert (merged.finished, merged.failed) == (8, 0)
    into = Store(tmp_path / "late")
    into.require_writable()
    into.write(failed(done))
    merge([two[0]], into.folder)
    assert not list(into.failed.glob("*.json")) and into.read(done["key"]) == done


def test_the_latest_failure_is_kept(tmp_path: Path) -> None:
    early, late = failed(RECORDS[0]), failed(RECORDS[0]) | {"started": "2027-01-01T00:00:00"}
    for name, record in (("a", late), ("b", early)):
        Store(tmp_path / name).records.mkdir(parents=True)
        Store(tmp_path / name).write(record)
    merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    assert merged.failed == 1 and Store(tmp_path / "all").load()[0] == [late]


def test_trials_made_twice_are_no_conflict(two: tuple[Path, Path], tmp_path: Path) -> None:
    trial = changed(RECORDS[0], task="trial")
    for seconds, folder in enumerate(two):
        Store(folder).write_trial(trial | {"train_seconds": float(seconds)})
    assert merge(two, tmp_path / "all").trials == 1
    found = Store(tmp_path / "all").read_trial(trial["key"])
    assert found is not None and found["train_seconds"] == 0.0


@pytest.mark.parametrize("after", range(0, 16, 5))
def test_an_interrupted_merge_goes_on(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    into, steps = tmp_path / "all", iter(range(after))

    def interrupted(what: str, done: int, total: int) -> None:
        if next(steps, None) is None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merge(two, into, interrupted)
    records, problems = Store(into).load()
    assert not problems
    for record in records:  # a run that is there has its predictions
        assert (into / "artifacts" / f"{record['key']}.predictions.npz").exists()
    assert merge(two, into).new == 16 - after - 1
    merge(two, tmp_path / "at once")
    assert content(into) == content(tmp_path / "at once")


def test_a_full_disk_is_told(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(merging, "copy", full)
    with pytest.raises(merging.UsageError, match="cannot be written: No space left"):
        merge(two, tmp_path / "all")


def test_the_command(cli: CLI, two: tuple[Path, Path]) -> None:
    (two[0] / "records" / "broken.json").write_text("{")
    done = cli("merge", *two, "--into", "all")
    assert done.code == 0 and "all: 8 finished runs, 0 failed, 0 trials, 8 files" in done.out
    assert "16 of these are new" in done.out and "broken.json cannot be read" in done.err
    assert cli("leaderboard", "--results", "all").code == 0
    cli("merge", "nowhere", "--into", "all").refused("no results in nowhere")
    cli("merge", *two).refused("--into")
    code = (
        "import sys\nfrom petlbench import cli\n"
        "try:\n    cli.main(sys.argv[1:])\nfinally:\n    assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, "merge", str(two[0]), "--into", "again"]
    assert subprocess.run(command, capture_output=True, timeout=60).returncode == 0
