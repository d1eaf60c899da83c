"""Class folders are read strictly, and what is wrong with them is named."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petlbench.data import class_folders, labelled
from petlbench.errors import UsageError


def fill(folder: Path, names: Iterable[str]) -> None:
    """Images of 4 x 4 pixels."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), "white").save(folder / name)


def refused(base: Path, *parts: str) -> None:
    with pytest.raises(UsageError) as raised:
        class_folders.read(base)
    for part in parts:
        assert part in str(raised.value), (part, str(raised.value))


def test_classes_are_folders_and_images_lie_anywhere_below(tmp_path: Path) -> None:
    fill(tmp_path, ["dog/b.png", "cat/x/y/a.PNG", "cat/c d.jpeg", "dog/é.webp"])
    data = class_folders.read(tmp_path)
    assert data.classes == ("cat", "dog")
    assert list(data.paths) == ["cat/c d.jpeg", "cat/x/y/a.PNG", "dog/b.png", "dog/é.webp"]
    assert list(data.labels) == [0, 0, 1, 1]
    assert not data.splits and not data.groups


def test_what_is_hidden_or_no_image_is_left(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/a.png", "dog/b.png", ".git/c.png", "__MACOSX/d.png", "cat/._a.png"])
    fill(tmp_path, ["cat/.cache/e.png", "cover.png"])
    (tmp_path / "cat" / "Thumbs.db").write_text("x")
    (tmp_path / "README.txt").write_text("x")
    assert list(class_folders.read(tmp_path).paths) == ["cat/a.png", "dog/b.png"]


def test_a_pattern_is_left(tmp_path: Path) -> None:
    fill(tmp_path, ["a/1.png", "a/1_mask.png", "b/2.png", "b/2_mask_1.png"])
    data = class_folders.read(tmp_path, ignore="*_mask*.png")
    assert list(data.paths) == ["a/1.png", "b/2.png"]


def test_numbers_are_in_the_order_of_numbers(tmp_path: Path) -> None:
    fill(tmp_path, [f"{name}/a.png" for name in ("10", "9", "1", "02")])
    assert class_folders.read(tmp_path).classes == ("1", "02", "9", "10")
    fill(tmp_path, ["x/a.png"])
    assert class_folders.read(tmp_path).classes == ("02", "1", "10", "9", "x")


@given(st.sets(st.text(min_size=1, max_size=5), min_size=1))
def test_the_order_of_classes_is_one(names: set[str]) -> None:
    ordered = class_folders.in_order(names)
    assert sorted(ordered) == sorted(names)
    assert ordered == class_folders.in_order(reversed(ordered))


@pytest.mark.parametrize("val", [False, True])
def test_train_and_test_are_the_split(tmp_path: Path, val: bool) -> None:
    fill(tmp_path, ["train/cat/a.png", "train/dog/b.png", "test/dog/c.png", "masks/x.png"])
    if val:
        fill(tmp_path, ["val/cat/d.png"])
    data = class_folders.read(tmp_path)
    assert data.classes == ("cat", "dog")
    sides = dict(zip(data.paths, data.splits, strict=True))
    assert sides["train/cat/a.png"] == "train" and sides["test/dog/c.png"] == "test"
    assert ("val/cat/d.png" in sides) == val
    assert [data.paths[i] for i in labelled.members(data, "test")] == ["test/dog/c.png"]


def test_a_linked_class_folder_is_followed(tmp_path: Path) -> None:
    fill(tmp_path, ["away/a.png", "data/dog/b.png"])
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "away")
    assert list(class_folders.read(tmp_path / "data").paths) == ["cat/a.png", "dog/b.png"]


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/a.png", "dog/b.png"])
    (tmp_path / "cow").mkdir()
    refused(tmp_path, f"no images in the class folder {tmp_path / 'cow'}", ".png", "remove it")


def test_no_class_folders(tmp_path: Path) -> None:
    refused(tmp_path, f"{tmp_path} has no class folders. Put the images", "path,label")
    fill(tmp_path, ["a.png"])
    refused(tmp_path, "has no class folders. Images lie in it directly. Put the images")


def test_one_class_folder(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/a.png", "cat/b.png"])
    refused(tmp_path, f"{tmp_path} has only one class folder, cat; two are needed")


@pytest.mark.parametrize("names", [["train", "val"], ["train"], ["Train", "Test"], ["training"]])
def test_sides_are_not_taken_for_classes(tmp_path: Path, names: list[str]) -> None:
    fill(tmp_path, [f"{name}/cat/a.png" for name in names])
    refused(tmp_path, f"has the folders {', '.join(sorted(names))}, which are not classes")


def test_a_validation_set_by_another_name_is_not_dropped(tmp_path: Path) -> None:
    fill(tmp_path, ["train/a/1.png", "train/b/2.png", "test/a/3.png", "valid/a/4.png"])
    refused(tmp_path, f"{tmp_path / 'valid'} lies beside train and test: rename it to val")


def test_a_class_that_is_only_tested_is_named(tmp_path: Path) -> None:
    fill(tmp_path, ["train/a/1.png", "train/b/2.png", "test/a/3.png", "test/c/4.png"])
    with pytest.raises(UsageError, match="no training images of: c"):
        labelled.sides(class_folders.read(tmp_path))


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_folder_is_named(tmp_path: Path) -> None:
    fill(tmp_path, ["cat/a.png", "dog/b.png"])
    (tmp_path / "cat").chmod(0)
    try:
        refused(tmp_path, f"{tmp_path / 'cat'} cannot be read: Permission denied")
    finally:
        (tmp_path / "cat").chmod(0o700)


def test_what_the_system_says_of_a_folder_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same where root runs the tests, who may read everything."""
    fill(tmp_path, ["cat/deep/a.png", "dog/b.png"])
    real = os.scandir

    def scandir(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    refused(tmp_path, f"{tmp_path / 'cat' / 'deep'} cannot be read: Permission denied")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path / "absent", f"{tmp_path / 'absent'} cannot be read as a folder: No such file")
