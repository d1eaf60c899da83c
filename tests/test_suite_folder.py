"""Suite folder: one's own images, from 20 on, as class folders or as a table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import petlbench
from petlbench import protocol
from petlbench.errors import UsageError
from petlbench.task import Task, load_suite

SUITE = load_suite("folder")
PARTS = ("train", "val", "trainval", "test")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """Ten red cats and ten blue dogs."""
    folder = tmp_path / "my pets"
    for name, colour in (("cat", (200, 0, 0)), ("dog", (0, 0, 200))):
        (folder / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (8, 8), colour).save(folder / name / f"{index}.png")
    return folder


@pytest.fixture
def table(pets: Path) -> Path:
    """The same images, listed."""
    file = pets.parent / "pets.v2.csv"
    lines = [f"{path.relative_to(pets.parent)},{path.parent.name}" for path in pets.glob("*/*.png")]
    file.write_text("path,label\n" + "\n".join(lines))
    return file


def task_at(root: Path | None) -> Task:
    (task,) = SUITE.at(root).tasks
    return task


def test_the_data_tell_what_the_task_is(pets: Path) -> None:
    task = task_at(pets)
    assert (task.name, task.classes, task.class_names) == ("my-pets", 2, ("cat", "dog"))
    assert task.sizes == {"train": 14, "val": 2, "trainval": 16, "test": 4}
    assert "20 images" in task.description and (task.problem, task.ordinal) == (
        "classification",
        False,
    )


def test_a_table_is_found_by_its_file_or_its_folder(pets: Path, table: Path) -> None:
    assert task_at(table).name == "pets.v2"
    assert task_at(table).sizes == task_at(pets).sizes
    assert task_at(table.parent).class_names == ("cat", "dog")  # the only .csv there
    assert task_at(table.parent).name == table.parent.name.replace("[", "-").strip("-.")


def test_with_several_tables_the_folders_are_the_classes(pets: Path) -> None:
    for name in ("ages.csv", "owners.csv"):
        (pets / name).write_text("name,value\n")
    assert task_at(pets).class_names == ("cat", "dog")
    (pets / "owners.csv").unlink()
    with pytest.raises(UsageError, match=r"ages\.csv: the first line must name"):
        task_at(pets)


@pytest.mark.parametrize("part", PARTS)
def test_every_part_opens_and_the_seed_changes_nothing(pets: Path, table: Path, part: str) -> None:
    for root in (pets, table):
        task = task_at(root)
        splits = [SUITE.open_split(task, part, root, seed) for seed in (0, 1, 42)]
        assert len({split.members for split in splits}) == 1
        split = splits[0]
        assert (split.name, len(split)) == (part, task.sizes[part])
        assert set(split.labels) == {0, 1}
        for index in range(len(split)):
            red, _, _ = np.asarray(split.read(index))[0, 0]
            assert (red > 100) == (split.labels[index] == 0)
            assert split.files[index].parent.name == task.class_names[split.labels[index]]


def test_training_and_test_images_are_different_ones(pets: Path) -> None:
    task = task_at(pets)
    files = {part: set(SUITE.open_split(task, part, pets, 0).files) for part in PARTS}
    assert not files["trainval"] & files["test"] and not files["train"] & files["val"]
    assert files["train"] | files["val"] == files["trainval"]
    assert len(files["trainval"] | files["test"]) == 20


def test_patients_of_a_table_stay_on_one_side(pets: Path, table: Path) -> None:
    lines = [line for line in table.read_text().splitlines() if line][1:]
    lines = [f"{line},patient {index // 2}" for index, line in enumerate(sorted(lines))]
    table.write_text("path,label,group\n" + "\n".join(lines))
    task = task_at(table)
    sides = [
        set(SUITE.open_split(task, part, table, 0).groups) for part in ("train", "val", "test")
    ]
    assert all(sides) and sum(map(len, sides)) == len(set.union(*sides)) == 10
    assert task.sizes["test"] == 4


def test_the_identity_follows_the_images(pets: Path) -> None:
    task, before = task_at(pets), SUITE.open_split(task_at(pets), "trainval", pets, 0).members
    Image.new("RGB", (8, 8)).save(pets / "cat" / "10.png")
    assert SUITE.open_split(task, "trainval", pets, 0).members != before


def test_other_classes_than_planned_are_refused(pets: Path) -> None:
    task = task_at(pets)
    (pets / "dog").rename(pets / "wolf")
    with pytest.raises(UsageError, match="are not those that task my-pets had"):
        SUITE.open_split(task, "test", pets, 0)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "give --data-root DIR (with a folder for each class) or --data-root FILE.csv"),
        ("absent", "no folder or file absent"),
        ("list.txt", "list.txt is neither a folder nor a .csv file."),
    ],
)
def test_what_is_no_data_root_is_told(tmp_path: Path, root: str | None, message: str) -> None:
    (tmp_path / "list.txt").write_text("a.png 0\n")
    with pytest.raises(UsageError) as raised:
        task_at(Path(root) if root else None)
    assert message in str(raised.value)


def test_the_protocol_fits_the_suite(pets: Path) -> None:
    rules = protocol.load(SUITE.protocol)
    named = {rules.train_split, rules.test_split, rules.search_train_split, rules.search_val_split}
    assert named == {"trainval", "test", "train", "val"}
    assert rules.normalisation == "checkpoint" and rules.augmentation == "none"
    assert (rules.epochs, rules.image_size, rules.drop_last) == (50, 224, False)


def test_twenty_images_are_enough_on_the_first_try(
    pets: Path, checkpoint: Path, cli: Callable[..., Any]
) -> None:
    done = cli(
        *("run", "--suite", "folder", "--data-root", pets, "--backbone", "vit_mini"),
        *("--checkpoint", checkpoint, "--image-size", "16", "--epochs", "8", "--seeds", "1"),
        *("--methods", "linear", "--set", "protocol.warmup_epochs=0", "--device", "cpu"),
        *("--set", "protocol.learning_rate=0.05", "--jobs", "1", "--threads", "1"),
        *("--results", "results/pets"),
    )
    assert done.code == 0, done
    (row,) = petlbench.load_results("results/pets").to_dict("records")
    assert (row["task"], row["accuracy"]) == ("my-pets", 1.0)
