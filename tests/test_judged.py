"""What was judged once is remembered as long as the file stays as it was, and no longer."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import synthetic

import petlbench
from petlbench import home, judged, plan, store
from petlbench.request import Request


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two of them, written long ago as it seems."""
    monkeypatch.setattr(home, "SETTLED", -60.0)
    return synthetic.write(tmp_path / "r", synthetic.records(1, 1, 2), keep=False) / "records"


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read."""
    names: list[str] = []

    def read(file: Path) -> Any:
        names.append(file.stem)
        return store.read_file(file)

    monkeypatch.setattr(judged, "read_file", read)
    return names


def test_a_record_is_opened_once(records: Path, opened: list[str]) -> None:
    first = judged.look(records)
    assert sorted(first) == sorted(opened) and len(opened) == 2
    opened.clear()
    assert judged.look(records) == first and opened == []
    key, told = next(iter(first.items()))
    spec = json.loads((records / f"{key}.json").read_text())["spec"]
    assert (told.task, told.seed, told.members) == (spec["task"], spec["seed"], spec["members"])
    assert told.done and not told.peek


def test_what_is_new_is_opened(records: Path, opened: list[str]) -> None:
    judged.look(records)
    opened.clear()
    further = synthetic.records(1, 1, 3)[2]
    (records / f"{further['key']}.json").write_text(json.dumps(further))
    assert len(judged.look(records)) == 3 and opened == [further["key"]]


@pytest.mark.parametrize("change", ["truncated", "edited", "foreign"])
def test_what_changed_is_judged_again(records: Path, change: str) -> None:
    """Also where size and modification time stay as they were."""
    key = sorted(judged.look(records))[0]
    file, times = records / f"{key}.json", (records / f"{key}.json").stat()
    text = file.read_text()
    if change == "truncated":
        text = text[:-1]
    elif change == "edited":
        text = text.replace('"seed": 0', '"seed": 7').replace('"seed": 1', '"seed": 8')
    else:
        text = " " * len(text)
    file.write_text(text)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_mtime_ns == times.st_mtime_ns
    assert len(judged.look(records)) == 1 and key not in judged.look(records)


def test_what_is_gone_is_not_there(records: Path) -> None:
    key = sorted(judged.look(records))[0]
    (records / f"{key}.json").unlink()
    assert len(judged.look(records)) == 1
    assert judged.look(records.parent / "failed") == {}


def test_what_was_just_written_is_not_trusted(
    records: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second change within the resolution of the clock would leave the times as they are."""
    monkeypatch.setattr(home, "SETTLED", 60.0)
    judged.look(records)
    judged.look(records)
    assert len(opened) == 4 and not (judged._file(records).parent).exists()


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"groups": 3, "files": []}', "\x00"])
def test_a_broken_memory_costs_time_only(records: Path, opened: list[str], text: str) -> None:
    first = judged.look(records)
    judged._file(records).write_text(text)
    opened.clear()
    assert judged.look(records) == first and len(opened) == 2


def test_another_version_judges_anew(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = judged._file(records)
    monkeypatch.setattr(judged, "_rules", lambda: "of another version")
    assert judged._file(records) != file


def test_many_are_read_by_several_processes(
    records: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (records / "broken.json").write_text("{")
    expected = judged.look(records)
    judged._file(records).unlink()
    opened.clear()
    monkeypatch.setattr(judged, "MANY", 2)
    monkeypatch.setattr(judged, "SOME", 1)
    assert judged.look(records) == expected and len(expected) == 2
    assert opened == []  # not here
    assert judged._file(records).exists()


def test_a_cache_that_cannot_be_written_costs_time_only(
    records: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = judged.look(records)
    (tmp_path / "full").touch()  # as a folder would be that nobody may write
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "full"))
    assert judged.look(records) == expected


def test_what_a_command_recorded_is_known_to_the_next(
    small: dict[str, Any], opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home, "SETTLED", -60.0)
    petlbench.run(**small, search=2)
    assert len(opened) == 1 + 2  # its record and trials
    opened.clear()
    assert plan.make(Request(**small, search=2)).todo == []
    made = plan.make(Request(**small | {"seeds": 2}, search=3))
    assert set(made.trials.values()) == {1} and opened == []
