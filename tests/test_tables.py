"""CSV files are read strictly: every mistake is told with its line."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from petlbench.data import labelled, tables
from petlbench.errors import UsageError

NAMES = [f"{index}.png" for index in range(10)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with ten images."""
    for name in NAMES:
        Image.new("RGB", (4, 4), "white").save(tmp_path / name)
    return tmp_path


def write(folder: Path, text: str) -> Path:
    file = folder / "list.csv"
    file.write_text(text, encoding="utf-8")
    return file


def refused(file: Path, *parts: str) -> None:
    with pytest.raises(UsageError) as raised:
        tables.read(file)
    assert str(file) in str(raised.value)
    assert len(str(raised.value).splitlines()) < 10
    for part in parts:
        assert part in str(raised.value), (part, str(raised.value))


def test_a_table_is_read(images: Path) -> None:
    data = tables.read(write(images, 'path,label\n0.png,dog\n"1.png",cat\n\n,\n2.png, dog \n'))
    assert data.classes == ("cat", "dog")
    assert list(data.paths) == ["0.png", "1.png", "2.png"]
    assert list(data.labels) == [1, 0, 1]
    assert data.base == images and not data.splits and not data.groups


def test_columns_may_stand_in_any_order_and_excel_may_have_written_them(images: Path) -> None:
    file = images / "list.csv"
    text = "Label,group,PATH,split\r\na,p,0.png,train\r\nb,q,1.png,test\r\na,q,2.png,test\r\n"
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    data = tables.read(file)
    assert list(data.paths) == ["0.png", "1.png", "2.png"]
    assert list(data.splits) == ["train", "test", "test"] and list(data.groups) == ["p", "q", "q"]


@pytest.mark.parametrize(
    ("values", "classes", "labels"),
    [
        (["3", "1", "10"], ("1", "3", "10"), [1, 0, 2]),
        (["007", "7", "-1"], ("-1", "7"), [1, 1, 0]),
        (["10", "9", "x"], ("10", "9", "x"), [0, 1, 2]),
        (["1.0", "10", "9"], ("1.0", "10", "9"), [0, 1, 2]),
        (["b", "B", "a"], ("B", "a", "b"), [2, 0, 1]),
    ],
)
def test_labels_are_numbered_in_order(
    images: Path, values: list[str], classes: tuple[str, ...], labels: list[int]
) -> None:
    lines = "".join(f"{index}.png,{value}\n" for index, value in enumerate(values))
    data = tables.read(write(images, "path,label\n" + lines))
    assert data.classes == classes
    assert list(data.labels) == labels


cell = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(
    lambda text: text == text.strip() and not text.isascii()
)


@given(st.lists(cell, min_size=2, max_size=10, unique=True))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_names_come_back(images: Path, names: list[str]) -> None:
    file = images / "list.csv"
    with file.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["path", "label"])
        writer.writerows(zip(NAMES, names, strict=False))
    data = tables.read(file)
    assert [data.classes[label] for label in data.labels] == names


def test_absolute_paths_may_be_used(images: Path, tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    file = write(tmp_path / "lists", f"path,label\n{images / '0.png'},a\n../1.png,b\n")
    data = tables.read(file)
    assert [(data.base / path).resolve().name for path in data.paths] == ["0.png", "1.png"]


def test_splits_and_groups_are_kept(images: Path) -> None:
    rows = [f"{i}.png,{'ab'[i % 2]},{'train' if i < 6 else 'test'},p{i // 2}\n" for i in range(10)]
    data = tables.read(write(images, "path,label,split,group\n" + "".join(rows)))
    assert labelled.members(data, "test") == [6, 7, 8, 9]
    val = labelled.members(data, "val")
    assert {data.groups[i] for i in val}.isdisjoint(
        data.groups[i] for i in labelled.members(data, "train")
    )


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ["the first line must name the columns path,label[,split][,group]", "nothing"]),
        ("0.png,a\n1.png,b\n", ["the first line must name", "it says: 0.png,a"]),
        ("path;label\n0.png;a\n", ["with commas between them; it says: path;label"]),
        ("path,class\n", ["the first line must name", "path,class"]),
        ("path,label,spilt\n", ["unknown column of", "'spilt'. Did you mean split?"]),
        ("path,label,label\n", ["the column label is there twice."]),
        ("path,label\n", ["has a first line, and no other."]),
        ("path,label\n0.png,a\n1.png\n", ["line 3: 1 cells instead of 2"]),
        ("path,label\n0.png,a\n1.png,b,c\n", ["line 3: 3 cells instead of 2"]),
        ("path,label\n0.png,a\n1.png,\n", ["line 3: label is empty"]),
        ("path,label,group\n0.png,a,x\n,b,\n", ["line 3: path is empty", "line 3: group is empty"]),
        ("path,label\n0.png,a\n1.png,a\n", ["has only one label, 'a'; two are needed"]),
        ("path,label\n0.png,a\n1.png,b\n0.png,a\n", ["line 4: 0.png is already in line 2"]),
        ("path,label\n0.png,a\n./0.png,a\n1.png,b\n", ["line 3: ./0.png is already in line 2"]),
        ("path,label\n0.png,a\n1.png,b\n0.png,b\n", ["line 4: 0.png is 'b', but 'a' in line 2"]),
        ("path,label\n0.png,a\nx.png,b\n", ["line 3: x.png is not there: no file", "x.png"]),
        ('path,label\n"0.png,a\n', ["cannot be read as a CSV file"]),
        (
            "path,label,split\n0.png,a,train\n1.png,b,tset\n",
            ["line 3: unknown split 'tset'. Did you mean test?"],
        ),
        (
            "path,label,split\n0.png,a,train\n1.png,b,train\n",
            ["has no line whose split is test", "leave the column split out"],
        ),
        (
            "path,label,split,group\n0.png,a,train,p1\n1.png,b,train,p2\n2.png,a,test,p1\n",
            ["group 'p1' is in train (line 2) and in test (line 4)", "on one side only"],
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(images: Path, text: str, parts: list[str]) -> None:
    refused(write(images, text), *parts)


def test_the_first_missing_images_are_named(images: Path) -> None:
    lines = "".join(f"gone/{index}.png,{index % 2}\n" for index in range(1_000))
    refused(write(images, "path,label\n" + lines), "gone/0.png", "gone/4.png", "and 995 more")


def test_what_is_no_text_is_refused(images: Path) -> None:
    file = images / "list.csv"
    file.write_bytes(b"path,label\n\xff\xfe\x00,a\n")
    refused(file, "cannot be read as a CSV file")
