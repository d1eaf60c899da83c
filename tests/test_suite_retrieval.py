"""The retrieval suite opens released files, its recipe is HarMA's, and splits are disjoint."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from petlbench import method, protocol, weights
from petlbench.data import captions
from petlbench.errors import UsageError
from petlbench.task import load_suite

SUITE = load_suite("retrieval")
LISTS = Path(__file__).resolve().parents[2] / "shared" / "splits" / "remote-sensing"
needs_lists = pytest.mark.skipif(not LISTS.is_dir(), reason="no published image lists here")


def images(task: str, part: str) -> list[str]:
    return (LISTS / f"{task}_{part}_images.txt").read_text().splitlines()


def write(base: Path, parts: dict[str, list[str]]) -> None:
    """Released files of the precomp format, with empty images of these names."""
    (base / "images").mkdir(parents=True)
    for part, names in parts.items():
        told = [name for name in names for _ in range(5 if part == "test" else 1)]
        (base / f"{part}_filename.txt").write_text("\n".join(told) + "\n")
        texts = [f"caption {c} of {name}" for name in names for c in range(5)]
        (base / f"{part}_caps.txt").write_text("\n".join(texts) + "\n")
        for name in names:
            (base / "images" / name).touch()


def test_tasks() -> None:
    groups = {task.name: task.group for task in SUITE.tasks}
    assert list(groups) == ["rsicd", "rsitmd", "ucm", "sydney", "flickr30k", "coco"]
    assert list(groups.values()) == ["Remote sensing"] * 4 + ["Natural"] * 2
    for task in SUITE.tasks:
        assert (task.problem, task.metric) == ("retrieval", "mean_recall")
        assert set(task.sizes) == set(captions.SPLITS)
        assert task.sizes["trainval"] == task.sizes["train"] + task.sizes["val"]
    totals = {task.name: task.sizes["trainval"] + task.sizes["test"] for task in SUITE.tasks[:4]}
    assert totals == {"rsicd": 10_921, "rsitmd": 4_743, "ucm": 2_100, "sydney": 613}
    assert [task.name for task in SUITE.select(["mscoco", "ucm_captions"])] == ["ucm", "coco"]


def test_a_task_is_a_folder_of_its_name(tmp_path: Path) -> None:
    base = tmp_path / "sydney"
    write(base, {"train": ["a.tif", "b.tif"], "test": ["c.tif"]})
    Image.new("L", (5, 4), 7).save(base / "images" / "c.tif")
    (task,) = SUITE.select(["sydney"])
    split = SUITE.open_split(task, "test", tmp_path, 0)
    assert (split.name, len(split), len(split.texts)) == ("test", 1, 5)
    assert (split.read(0).mode, split.read(0).getpixel((0, 0))) == ("RGB", (7, 7, 7))
    assert split.members == SUITE.open_split(task, "test", tmp_path, 1).members
    with pytest.raises(UsageError, match="--data-root"):
        SUITE.open_split(task, "test", None, 0)


def test_the_recipe_is_harmas() -> None:
    """configs/Retrieval_rsicd_vit.yaml, optim.py and dataset/__init__.py of its repository."""
    rules = protocol.load(SUITE.protocol).rules()
    expected = {
        **{"optimizer": "adamw", "learning_rate": 4e-4, "weight_decay": 0.04, "beta2": 0.98},
        **{"schedule": "linear", "epochs": 10, "batch_size": 2 * 214, "temperature": 0.07},
        **{"warmup_learning_rate": 0.0, "min_learning_rate": 0.0, "drop_last": True},
        **{"image_size": 224, "resize": "bicubic", "resize_to": 0, "augmentation": "harma"},
        **{"normalisation": "clip", "towers": "both", "train_split": "trainval"},
    }
    assert {name: rules[name] for name in expected} == expected
    assert rules["warmup_epochs"] / rules["epochs"] == 0.1
    for split in ("train_split", "test_split", "search_train_split", "search_val_split"):
        assert rules[split] in captions.SPLITS


# `linear` and `zero_shot` add nothing to a tower
@pytest.mark.parametrize("name", sorted({*SUITE.methods} - {"linear", "zero_shot"}))
def test_methods_fit_both_towers(name: str) -> None:
    backbone = weights.specify(SUITE.backbone, weights.RANDOM)
    shape = weights.shape(backbone, 224, towers="both")
    built = method.specify(name).build()
    built.require(shape)
    # something trains in either tower: more than in the one for images
    images_alone = weights.shape(backbone, 224, towers="image")
    assert built.num_trainable(shape) > built.num_trainable(images_alone) > 0


@needs_lists
@pytest.mark.parametrize("name", ["rsicd", "rsitmd", "ucm"])
def test_published_splits_have_these_sizes_and_are_disjoint(tmp_path: Path, name: str) -> None:
    (task,) = SUITE.select([name])
    write(tmp_path / name, {part: images(name, part) for part in ("train", "test")})
    # opening them refuses an image that is in two parts
    opened = {p: SUITE.open_split(task, p, tmp_path, 0) for p in ("trainval", "test")}
    for split, each in opened.items():
        assert len(each) == task.sizes[split] and len(each.texts) == 5 * len(each)
    assert not set(opened["trainval"].files) & set(opened["test"].files)


@needs_lists
def test_ucm_is_tested_on_ten_images_of_each_class() -> None:
    """81 to 90 of the first hundred, and the last ten of every later one."""
    last_tens = [range(100 * number + 91, 100 * number + 101) for number in range(1, 21)]
    numbers = [n for ten in (range(81, 91), *last_tens) for n in ten]
    assert images("ucm", "test") == [f"{number}.tif" for number in numbers]
    rest = [f"{n}.tif" for n in range(1, 2101) if n not in numbers]
    assert sorted(images("ucm", "train")) == sorted(rest)
