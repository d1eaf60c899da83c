"""VPT's JSON lists: read strictly, numbered by the ids of the training list."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from petlbench.data import folders, json_lists
from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError

TRAIN: dict[str, Any] = {"b/1.jpg": 40, "a/2.jpg": 7, "b/3.jpg": 40, "c 4.jpg": 295}
VAL: dict[str, Any] = {"a/5.jpg": 7}
TEST: dict[str, Any] = {"c/6.jpg": 295, "a/7.jpg": 7}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in (("train", TRAIN), ("val", VAL), ("test", TEST)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def opened(folder: Path, *parts: str, classes: int = 3) -> Split:
    return json_lists.open_split(folder, folder / "images", "x", parts, classes)


def refused(folder: Path, *parts: str) -> str:
    with pytest.raises(UsageError) as raised:
        opened(folder, *parts)
    return str(raised.value)


def test_ids_become_labels_in_their_order(folder: Path) -> None:
    split = opened(folder, "train")
    assert (split.name, split.labels.tolist()) == ("x", [1, 0, 1, 2])
    # a list with some of the classes has the numbers of training, not its own
    assert opened(folder, "test").labels.tolist() == [2, 0]
    assert opened(folder, "val").labels.tolist() == [0]
    with pytest.raises(RunError) as raised:
        split.read(3)
    assert str(folder / "images" / "c 4.jpg") in str(raised.value)


def test_lists_are_joined_in_the_order_given(folder: Path) -> None:
    both = opened(folder, "train", "val")
    assert both.labels.tolist() == [1, 0, 1, 2, 0]
    assert len({opened(folder, *p).members for p in (["train"], ["val"], ["train", "val"])}) == 3


def test_ids_may_be_texts(folder: Path) -> None:
    for name in ("train", "val", "test"):
        file = folder / f"{name}.json"
        file.write_text(json.dumps({k: f"{v:04}" for k, v in json.loads(file.read_text()).items()}))
    assert opened(folder, "train").labels.tolist() == [1, 0, 1, 2]


paths = st.from_regex(r"[a-z0-9 _é]{1,8}/[a-z0-9 ._-]{1,8}\.jpg", fullmatch=True)


@given(st.dictionaries(paths, st.integers(-50, 1000), min_size=1, max_size=20))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_list_comes_back(tmp_path: Path, listed: dict[str, int]) -> None:
    (tmp_path / "train.json").write_text(json.dumps(listed), "utf-8")
    assert json_lists.read(tmp_path / "train.json") == listed
    ids = sorted(set(listed.values()))
    split = opened(tmp_path, "train", classes=len(ids))
    assert [ids[label] for label in split.labels] == list(listed.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "cannot be read as JSON: Expecting value: line 1 column 1"),
        ('{"a.jpg": 1,\n "b.jpg": }', "cannot be read as JSON: Expecting value: line 2"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("[1]", 'must be one object {"relative/path": class id, ...}.'),
        ("{}", "must be one object"),
        ('{"a.jpg": 1, "b.jpg": 2, "a.jpg": 1}', "train.json: 'a.jpg' stands there 2 times."),
        ('{"a.jpg": 1.0}', "'a.jpg': the class id 1.0 must be a whole number or a text."),
        ('{"a.jpg": true}', "the class id True must be"),
        ('{"a.jpg": null}', "the class id None must be"),
        ('{"a.jpg": {"b": 1}}', "the class id {'b': 1} must be"),
        ('{"a.jpg": 1, "b.jpg": "1"}', "some class ids are numbers and others are texts"),
        ('{"/a.jpg": 1}', "'/a.jpg': the path must be relative and stay inside its folder."),
        ('{"x/../../a.jpg": 1}', "must be relative and stay inside"),
        ('{"": 1}', "must be relative and stay inside"),
        ('{"a.jpg": 1, "b.jpg": 9}', "train.json has 2 classes; 3 are expected."),
    ],
)
def test_a_bad_list_is_named(folder: Path, content: str, message: str) -> None:
    (folder / "train.json").write_text(content)
    text = refused(folder, "test")
    assert text.startswith(str(folder / "train.json")) and message in text
    assert len(text) < 500


def test_what_is_not_text_is_refused(folder: Path) -> None:
    (folder / "train.json").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as JSON" in refused(folder, "train")


def test_a_missing_list_is_named(folder: Path) -> None:
    (folder / "test.json").unlink()
    assert refused(folder, "test") == f"no list file {folder / 'test.json'}"


def test_a_class_that_training_lacks_is_named(folder: Path) -> None:
    (folder / "test.json").write_text(json.dumps({"a/7.jpg": 7, "d/8.jpg": 8}))
    expected = f"{folder / 'test.json'}, 'd/8.jpg': no image of train.json has the class 8."
    assert refused(folder, "test") == expected


@pytest.mark.parametrize(
    ("later", "earlier"), [("test", "train"), ("test", "val"), ("val", "train")]
)
def test_an_image_in_two_lists_is_named(folder: Path, later: str, earlier: str) -> None:
    shared = {"train": TRAIN, "val": VAL}[earlier]
    file = folder / f"{later}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | shared))
    message = f"{file}: {min(shared)!r} stands in {folder / f'{earlier}.json'} too."
    assert refused(folder, later) == message


def test_without_a_val_list_test_is_compared_with_training_alone(folder: Path) -> None:
    (folder / "val.json").unlink()
    assert opened(folder, "test").labels.tolist() == [2, 0]


def test_folders_of_several_names(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        folders.first(tmp_path, ("one", "two", "three"))
    assert str(raised.value) == f"no folder {tmp_path / 'one'} (nor two, three there)"
    (tmp_path / "three").mkdir()
    (tmp_path / "one").write_text("")  # a file is no folder
    assert folders.first(tmp_path, ("one", "two", "three")) == tmp_path / "three"
    (tmp_path / "two").mkdir()
    assert folders.first(tmp_path, ("one", "two", "three")) == tmp_path / "two"
    with pytest.raises(UsageError, match="--data-root"):
        folders.first(None, ("one",))
