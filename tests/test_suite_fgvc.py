"""FGVC in VPT's layout: folders, image roots, splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from petlbench import protocol
from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.task import load_suite

SUITE = load_suite("fgvc")
# task -> folder, and where below it images lie
LAYOUT = {
    "cub200": ("CUB_200_2011", "images"),
    "nabirds": ("nabirds", "images"),
    "oxford_flowers": ("OxfordFlower", "."),
    "stanford_dogs": ("Stanford-dogs", "Images"),
    "stanford_cars": ("Stanford-cars", "."),
}


def opened(root: Path | None, name: str, split: str) -> Split:
    (task,) = SUITE.select([name])
    return SUITE.open_split(task, split, root, 0)


def write(folder: Path, images: str, classes: int) -> None:
    """One training image a class, two for val and test; ids start at 100, every third is used."""
    ids = [100 + 3 * label for label in range(classes)]
    lists = {
        "train": {f"pictures/{number}.png": number for number in ids},
        "val": {"pictures/val.png": ids[1]},
        "test": {"pictures/test 1.png": ids[-1], "pictures/test 2.png": ids[0]},
    }
    (folder / images / "pictures").mkdir(parents=True)
    for name, content in lists.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    for index, path in enumerate(lists["test"]):
        Image.new("RGB", (3 + index, 2)).save(folder / images / path)


@pytest.mark.parametrize("name", LAYOUT)
def test_every_task_is_read(tmp_path: Path, name: str) -> None:
    folder, images = LAYOUT[name]
    (task,) = SUITE.select([name])
    write(tmp_path / folder, images, task.classes)
    assert opened(tmp_path, name, "train").labels.tolist() == list(range(task.classes))
    assert opened(tmp_path, name, "trainval").labels.tolist() == [*range(task.classes), 1]
    test = opened(tmp_path, name, "test")
    assert test.labels.tolist() == [task.classes - 1, 0]
    assert [test.read(index).size for index in (0, 1)] == [(3, 2), (4, 2)]


def test_other_names_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "cub200", "images", 200)
    assert len(opened(tmp_path, "CUB_200_2011", "train")) == 200  # an alias of the task


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data-root"):
        opened(None, "cub200", "train")
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, "cub200", "train")
    assert str(tmp_path / "CUB_200_2011") in str(raised.value) and "cub200" in str(raised.value)
    (tmp_path / "CUB_200_2011").mkdir()
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, "cub200", "train")
    assert str(raised.value) == f"no folder {tmp_path / 'CUB_200_2011' / 'images'}"
    with pytest.raises(UsageError, match=r"unknown split of suite fgvc 'trian'\. Did you mean tra"):
        opened(tmp_path, "cub200", "trian")


def test_declared_sizes_and_the_protocol_agree() -> None:
    for task in SUITE.tasks:
        assert task.sizes["trainval"] == task.sizes["train"] + task.sizes["val"]
    rules = protocol.load(SUITE.protocol)
    for split in (rules.train_split, rules.test_split, rules.search_val_split):
        assert all(split in task.sizes for task in SUITE.tasks)
    # VPT does not train on what it selects with
    assert (rules.train_split, rules.search_val_split) == ("train", "val")
    assert {rules.learning_rate} <= set(rules.search_learning_rate)
    assert {rules.weight_decay} <= set(rules.search_weight_decay)
