"""Few-shot tasks in NOAH's layout; its published lists, where the machine has them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from petlbench import protocol
from petlbench.data import lists
from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.suites import few_shot
from petlbench.task import load_suite

SUITE = load_suite("few-shot")
PUBLISHED = Path(__file__).resolve().parents[2] / "shared" / "splits" / "noah" / "few-shot"


def opened(root: Path | None, name: str, split: str, seed: int = 0) -> Split:
    (task,) = SUITE.select([name])
    return SUITE.open_split(task, split, root, seed)


def write(folder: Path, images: str, classes: int, shots: int) -> Path:
    """Lists of three seeds, a val and a test list, and the images of the test list."""
    notes = folder / "annotations"
    notes.mkdir(parents=True)
    (folder / images).mkdir(exist_ok=True)
    for seed in (0, 1, 2):
        lines = [f"a b/{seed}_{c}_{k}.png {c}\n" for c in range(classes) for k in range(shots)]
        (notes / f"train_meta.list.num_shot_{shots}.seed_{seed}").write_text("".join(lines))
    (notes / "val_meta.list").write_text("v.png 1\n")
    (notes / "test_meta.list").write_text("t 1.png 3\nt 2.png 0\n")
    for index in (1, 2):
        Image.new("RGB", (index, 1)).save(folder / images / f"t {index}.png")
    return folder


def test_the_tasks() -> None:
    assert len(SUITE.tasks) == 25
    groups = Counter(task.group for task in SUITE.tasks)
    assert groups == {"1 shot": 5} | {f"{k} shots": 5 for k in (2, 4, 8, 16)}
    assert list(groups) == ["1 shot", "2 shots", "4 shots", "8 shots", "16 shots"]
    for task in SUITE.tasks:
        dataset, _, shots = task.name.partition("@")
        double = 2 if task.name == "oxford_pets@1" else 1
        assert task.sizes["train"] == int(shots) * task.classes * double, dataset
    aliases = ["food-101@2", "oxford_flowers@16", "standford-cars@1", "fgvc-aircraft@4"]
    assert [task.name for task in SUITE.select(aliases)] == [
        *("stanford_cars@1", "food101@2", "fgvc_aircraft@4", "oxford_flowers102@16"),
    ]


@pytest.mark.parametrize(
    ("name", "folder", "images"),
    [
        ("fgvc_aircraft", "fgvc-aircraft", "images"),
        ("food101", "food101", "images"),
        ("oxford_flowers102", "oxford-flowers102", "images"),
        ("oxford_flowers102", "oxford_flowers", "jpg"),
        ("oxford_pets", "oxford-pets", "images"),
        ("stanford_cars", "standford-cars", "."),
        ("stanford_cars", "stanford-cars", "."),
    ],
)
def test_every_layout_is_read(tmp_path: Path, name: str, folder: str, images: str) -> None:
    classes = few_shot.SOURCES[name].classes
    write(tmp_path / folder, images, classes, shots=2)
    train = opened(tmp_path, f"{name}@2", "train")
    assert train.labels.tolist() == [c for c in range(classes) for _ in range(2)]
    test = opened(tmp_path, f"{name}@2", "test")
    assert test.labels.tolist() == [3, 0]
    assert [test.read(index).size for index in (0, 1)] == [(1, 1), (2, 1)]
    assert opened(tmp_path, f"{name}@2", "val").labels.tolist() == [1]


def test_the_seed_of_the_run_chooses_the_list(tmp_path: Path) -> None:
    write(tmp_path / "oxford-pets", "images", 37, shots=4)
    members = [opened(tmp_path, "oxford_pets@4", "train", seed).members for seed in (0, 1, 2)]
    assert len(set(members)) == 3
    assert len({opened(tmp_path, "oxford_pets@4", "test", seed).members for seed in (0, 1)}) == 1
    for seed in (3, -1):
        with pytest.raises(UsageError, match=rf"none for {seed}: --seeds 3 at most"):
            opened(tmp_path, "oxford_pets@4", "train", seed)


def test_the_lists_of_one_shot_of_pets_name_each_image_twice(tmp_path: Path) -> None:
    folder = write(tmp_path / "oxford-pets", "images", 37, shots=1)
    with pytest.raises(UsageError, match=r"lists 37 images; 74 are expected"):
        opened(tmp_path, "oxford_pets@1", "train")
    file = folder / "annotations" / "train_meta.list.num_shot_1.seed_0"
    file.write_text(file.read_text() * 2)
    assert opened(tmp_path, "oxford_pets@1", "train").labels.tolist() == [*range(37), *range(37)]


def test_a_list_of_other_shots_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path / "food101", "images", 101, shots=2)
    file = folder / "annotations" / "train_meta.list.num_shot_2.seed_0"
    lines = file.read_text().splitlines()
    file.write_text("\n".join(lines[:-1]))
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, "food101@2", "train")
    assert str(raised.value) == f"{file} lists 201 images; 202 are expected."
    file.write_text("\n".join([*lines[:-1], "more.png 0"]))  # as many, but not two of each
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, "food101@2", "train")
    assert f"{file} lists 3 images of class 0; 2 are expected of every class." in str(raised.value)
    file.write_text("\n".join([*lines[:-1], "more.png 101"]))
    with pytest.raises(UsageError, match=r"line 202: .*the label must be in 0\.\.100"):
        opened(tmp_path, "food101@2", "train")


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--data-root"):
        opened(None, "food101@1", "train")
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, "stanford_cars@1", "train")
    assert str(tmp_path / "standford-cars") in str(raised.value)
    assert "stanford-cars" in str(raised.value)
    folder = write(tmp_path / "food101", "images", 101, shots=1)
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, "food101@8", "train")
    missing = folder / "annotations" / "train_meta.list.num_shot_8.seed_0"
    assert str(raised.value) == f"no list file {missing}"
    with pytest.raises(UsageError, match="unknown split of suite few-shot 'trainval'"):
        opened(tmp_path, "food101@1", "trainval")


def test_the_protocol_fits() -> None:
    rules = protocol.load(SUITE.protocol)
    assert rules.seeds == len(few_shot.SEEDS)
    used = {rules.train_split, rules.test_split, rules.search_train_split, rules.search_val_split}
    assert used <= few_shot.LISTS.keys()
    # with drop_last, the smallest task still fills a batch
    assert rules.drop_last
    assert min(task.sizes["train"] for task in SUITE.tasks) >= rules.batch_size


@pytest.mark.skipif(not PUBLISHED.is_dir(), reason="NOAH's lists are not here")
@pytest.mark.parametrize("name", few_shot.SOURCES)
def test_the_published_lists(tmp_path: Path, name: str) -> None:
    """Counts, balance, label ranges, and no image on two sides."""
    source = few_shot.SOURCES[name]
    folder = tmp_path / source.folders[0]
    (folder / "images").mkdir(parents=True)
    (folder / "annotations").symlink_to(PUBLISHED / source.folders[0] / "annotations")
    tasks = [task for task in SUITE.tasks if task.name.startswith(f"{name}@")]
    assert len(tasks) == 5
    members: dict[str, set[str]] = {}
    for split in ("val", "test"):
        opening = SUITE.open_split(tasks[0], split, tmp_path, 0)
        assert len(opening) == tasks[0].sizes[split]
        assert np.unique(opening.labels).tolist() == list(range(source.classes))
        members[split] = set(paths_of(folder / "annotations" / f"{split}_meta.list", source))
        assert len(members[split]) == len(opening)
    assert not members["val"] & members["test"]
    for task in tasks:
        shots = int(task.name.partition("@")[2])
        for seed in few_shot.SEEDS:
            train = SUITE.open_split(task, "train", tmp_path, seed)
            file = folder / "annotations" / f"train_meta.list.num_shot_{shots}.seed_{seed}"
            paths = paths_of(file, source)
            assert len(paths) == len(train) == task.sizes["train"]
            assert len(set(paths)) == shots * source.classes  # also of pets, listed twice
            assert not set(paths) & (members["val"] | members["test"])


def paths_of(file: Path, source: few_shot.Source) -> list[str]:
    return lists.parse(file, file.parent, source.classes)[0]
