"""Records, trials and artifacts that were cut short, edited, swapped or are something else.

Whatever lies there, commands end with a sentence that names the file, it is not counted, and the
same command makes the run again, bit for bit.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import CLI
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chaos.sweep import Sweep, assert_whole
from petlbench import plots
from petlbench.store import Store, read_file


@pytest.fixture
def results(reference: Path, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished sweep."""
    monkeypatch.setenv("PETLBENCH_CACHE", str(sweep.cache))
    monkeypatch.setattr(plots, "draw", lambda *_: None)
    return Path(shutil.copytree(reference, tmp_path / "results"))


def first(folder: Path) -> Path:
    return min(folder.glob("*.json"))


def artifact_of(method: str, results: Path, suffix: str) -> Path:
    """Of one of its runs."""
    records, _ = Store(results).load()
    key = next(r["key"] for r in records if r["spec"]["method"]["name"] == method)
    return results / "artifacts" / f"{key}{suffix}"


def flipped(content: bytes, at: int, bit: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]


def one_bit(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(flipped(whole, len(whole) // 2, 0))


def edited(field: str, value: object) -> Callable[[Path], object]:
    def edit(file: Path) -> None:
        record = json.loads(file.read_text())
        *path, last = field.split(".")
        place = record
        for name in path:
            place = place[name]
        place[last] = value
        file.write_text(json.dumps(record, indent=1))

    return edit


def a_pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def a_link(target: str) -> Callable[[Path], object]:
    def link(file: Path) -> None:
        file.unlink()
        file.symlink_to(target)

    return link


def the_next_one(file: Path) -> None:
    shutil.copy(sorted(file.parent.iterdir())[1], file)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "half": lambda file: os.truncate(file, file.stat().st_size // 2),
    "huge": lambda file: os.truncate(file, 2**40),
    "foreign": lambda file: file.write_text('{"name": "eslint", "private": true}'),
    "another schema": edited("schema", 99),
    "another seed": edited("spec.seed", 5),
    "another count": edited("test.correct", 0),
    "another loss": edited("train_loss", [0.0, 0.0]),
    "faster": edited("train_seconds", 1e-9),
    "the record of another run": the_next_one,
    "a failed one": edited("status", "failed"),
    "a pipe": a_pipe,
    "an endless file": a_link("/dev/zero"),
    "a link to nothing": a_link("nowhere"),
    "a link to itself": lambda file: a_link(file.name)(file),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named_and_made_again(
    cli: CLI, sweep: Sweep, reference: Path, results: Path, damage: str
) -> None:
    file = first(results / "records")
    DAMAGES[damage](file)
    for command in ("leaderboard", "list runs"):
        looked = cli(*command.split(), "--results", results)
        assert looked.code == 0 and file.name in looked.err and "left out" in looked.err
        assert "Traceback" not in looked.err
    assert f"{sweep.runs - 1} done" in cli("status", "--results", results).out
    planned = cli("plan", *sweep.arguments(results)[1:])
    assert planned.code == 0 and f"{sweep.runs - 1} done, 1 to go" in planned.out
    assert cli(*sweep.arguments(results)).code == 0
    assert_whole(results, reference)


def test_a_folder_under_the_name_of_a_record_is_named(
    cli: CLI, sweep: Sweep, reference: Path, results: Path
) -> None:
    """It cannot be replaced: a person must look into it."""
    file = first(results / "records")
    file.unlink()
    file.mkdir()
    assert file.name in cli("leaderboard", "--results", results).err
    cli(*sweep.arguments(results)).refused("Is a directory", str(file), "same command")
    file.rmdir()
    assert cli(*sweep.arguments(results)).code == 0
    assert_whole(results, reference)


@pytest.mark.parametrize("folder", ["records", "failed"])
def test_a_copy_of_a_record_is_not_counted(
    cli: CLI, sweep: Sweep, reference: Path, results: Path, folder: str
) -> None:
    """Under another name, and among the failed ones."""
    file = first(results / "records")
    name = {"records": "copy.json", "failed": file.name}[folder]
    copy = Path(shutil.copy(file, results / folder / name))
    before = (reference / "leaderboard.csv").read_text()
    looked = cli("leaderboard", "--results", results, "--format", "csv")
    assert looked.code == 0 and str(copy) in looked.err
    assert looked.out.strip() == before.strip()
    told = cli("status", "--results", results).out
    assert f"{sweep.runs} done, 0 running, 0 failed" in told
    assert cli(*sweep.arguments(results)).code == 0
    copy.unlink(missing_ok=True)
    assert_whole(results, reference)


@pytest.fixture(scope="module")
def record(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copy(first(reference / "records"), tmp_path_factory.mktemp("one")))


@settings(max_examples=500)
@given(data=st.data())
def test_no_cut_and_no_flipped_bit_makes_another_record(record: Path, data: st.DataObject) -> None:
    """What can still be read says what it said: the flip was between words, or in "digest"."""
    expected, _ = read_file(record)
    assert expected is not None
    whole = record.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = data.draw(st.none() | st.integers(0, 7))
    damaged = record.with_name("damaged") / record.name
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_bytes(whole[:at] if bit is None else flipped(whole, at, bit))
    found, why = read_file(damaged)
    if found is None:
        assert record.name in why and "left out" in why
    else:
        assert found.items() >= expected.items()


def test_what_nobody_may_read_is_named(cli: CLI, results: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    file = first(results / "records")
    file.chmod(0)
    looked = cli("leaderboard", "--results", results)
    assert looked.code == 0 and file.name in looked.err


@pytest.mark.parametrize("damage", ["half", "foreign", "another loss", "huge", "a pipe"])
def test_a_damaged_trial_is_made_again(
    cli: CLI, sweep: Sweep, reference: Path, results: Path, damage: str
) -> None:
    """Where its runs are to be made: then it decides."""
    shutil.rmtree(results / "records")
    DAMAGES[damage](first(results / "trials"))
    assert cli(*sweep.arguments(results)).code == 0
    assert_whole(results, reference)


ARTIFACTS: dict[str, Callable[[Path], object]] = {
    "empty": DAMAGES["empty"],
    "half": DAMAGES["half"],
    "one bit": one_bit,
    "that of another run": lambda file: shutil.copy(
        next(f for f in sorted(file.parent.glob(f"*{file.suffix}")) if f != file), file
    ),
}


@pytest.fixture
def made_again(cli: CLI, sweep: Sweep, reference: Path, results: Path) -> Callable[[Path], None]:
    """Do as the message says: move the files of the run out, then run it again."""

    def again(file: Path) -> None:
        key = file.name.partition(".")[0]
        for mine in results.rglob(f"{key}.*"):
            mine.unlink()
        assert cli(*sweep.arguments(results)).code == 0
        assert_whole(results, reference)

    return again


@pytest.mark.parametrize("damage", ARTIFACTS)
def test_damaged_predictions_are_named(
    cli: CLI, results: Path, made_again: Callable[[Path], None], damage: str
) -> None:
    compare = ("compare", "linear", "lora", "--results", results)
    assert cli(*compare).code == 0
    file = artifact_of("linear", results, ".predictions.npz")
    ARTIFACTS[damage](file)
    cli(*compare).refused(str(file), "is not what its run wrote")
    made_again(file)


@pytest.mark.parametrize("damage", ARTIFACTS)
def test_damaged_weights_are_named(
    cli: CLI, results: Path, made_again: Callable[[Path], None], tmp_path: Path, damage: str
) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(picture)
    file = artifact_of("lora", results, ".safetensors")
    key = file.name.partition(".")[0]
    predict = ("predict", "--run", key, "--results", results, picture)
    assert cli(*predict).code == 0
    ARTIFACTS[damage](file)
    cli(*predict).refused(str(file), "is not what its run wrote")
    export = tmp_path / "out.safetensors"
    cli("export", "--run", key, "--results", results, "-o", export).refused(str(file))
    assert not export.exists()
    file.unlink()
    cli(*predict).refused("were not kept", file.name)
    made_again(file)
