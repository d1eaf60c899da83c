"""Domain generalisation in NOAH's layout: source, targets, and what a target's name means."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from petlbench import protocol
from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.suites import domain_generalisation
from petlbench.task import class_names, load_suite

SUITE = load_suite("domain-generalisation")
(TASK,) = SUITE.tasks


def opened(root: Path | None, split: str, seed: int = 0) -> Split:
    return SUITE.open_split(TASK, split, root, seed)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The published layout, with one image a folder."""
    notes = tmp_path / "imagenet" / "annotations"
    notes.mkdir(parents=True)
    for seed in (0, 1, 2):
        lines = [f"n{c}/n{c}_{seed}_{k}.JPEG {c}\n" for c in range(1000) for k in range(16)]
        (notes / f"train_meta.list.num_shot_16.seed_{seed}").write_text("".join(lines))
    (notes / "val_meta.list").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    (notes / "unofficial_val_list_4_shot16seed0").write_text("n1/n1_9.JPEG 1\n")
    image(tmp_path / "imagenet" / "train" / "n1" / "n1_9.JPEG")
    image(tmp_path / "imagenet" / "val" / "ILSVRC2012_val_00000001.JPEG")
    for folder, path, label in (
        ("imagenetv2", "imagenetv2-matched-frequency-format-val/361/0413.jpeg", 361),
        ("imagenet-sketch", "images/n03764736/sketch_23.JPEG", 653),
        ("imagenet-adversarial", "imagenet-a/n2/0.003_soap dispenser _ soap_0.28.jpg", 954),
        ("imagenet-rendition", "imagenet-r/n04522168/cartoon_19.jpg", 883),
    ):
        (tmp_path / folder / "annotations").mkdir(parents=True)
        (tmp_path / folder / "annotations" / "val_meta.list").write_text(f"{path} {label}\n")
        image(tmp_path / folder / path)
    return tmp_path


def image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (5, 4)).save(file, "JPEG")


def test_the_source_is_read(root: Path) -> None:
    train = opened(root, "train")
    assert train.labels.tolist() == [c for c in range(1000) for _ in range(16)]
    assert len({opened(root, "train", seed).members for seed in (0, 1, 2)}) == 3
    val, heldout = opened(root, "val"), opened(root, "heldout")
    assert (val.labels.tolist(), heldout.labels.tolist()) == ([65], [1])
    assert val.read(0).size == heldout.read(0).size == (5, 4)


@pytest.mark.parametrize(
    ("split", "label"),
    [("imagenetv2", 361), ("imagenet-sketch", 653), ("imagenet-a", 954), ("imagenet-r", 883)],
)
def test_every_variant_is_read(root: Path, split: str, label: int) -> None:
    target = opened(root, split)
    assert (target.name, target.labels.tolist()) == (split, [label])
    assert target.read(0).size == (5, 4)
    assert target.members == opened(root, split, seed=2).members


def test_other_folder_names_are_understood(root: Path) -> None:
    (root / "imagenet-rendition").rename(root / "imagenet-r")
    assert opened(root, "imagenet-r").labels.tolist() == [883]
    (root / "imagenet" / "images").mkdir()
    (root / "imagenet" / "val").rename(root / "imagenet" / "images" / "val")  # as CoOp has it
    assert opened(root, "val").read(0).size == (5, 4)


def test_folders_of_v2_sorted_as_texts_are_refused(root: Path) -> None:
    """0, 1, 10, 100, ...: the third folder is 10, and its label is not 2."""
    file = root / "imagenetv2" / "annotations" / "val_meta.list"
    file.write_text("v2/0/a.jpeg 0\nv2/1/b.jpeg 1\nv2/10/c.jpeg 2\n")
    with pytest.raises(UsageError) as raised:
        opened(root, "imagenetv2")
    message = f"{file}: 'v2/10/c.jpeg' has label 2, but its folder says 10."
    assert str(raised.value) == message


def test_seeds_without_a_list_are_refused(root: Path) -> None:
    with pytest.raises(UsageError, match=r"for 0, 1, 2, not for 3: --seeds 3 at most"):
        opened(root, "train", seed=3)
    # the held-out images are in the training lists of the other seeds
    with pytest.raises(UsageError, match=r"'heldout' is there for 0, not for 1: --seeds 1 at"):
        opened(root, "heldout", seed=1)
    assert len(opened(root, "val", seed=7)) == 1


def test_what_is_wrong_is_named(root: Path) -> None:
    with pytest.raises(UsageError, match="--data-root"):
        opened(None, "train")
    with pytest.raises(
        UsageError, match=r"unknown split .* 'imagenet-v2'\. Did you mean imagenetv2"
    ):
        opened(root, "imagenet-v2")
    (root / "imagenet" / "annotations" / "train_meta.list.num_shot_16.seed_0").write_text("a 1\n")
    with pytest.raises(UsageError, match="lists 1 images; 16000 are expected"):
        opened(root, "train")
    (root / "imagenet-sketch" / "annotations" / "val_meta.list").write_text("a.jpg 1000\n")
    with pytest.raises(UsageError, match=r"line 1: .*the label must be in 0\.\.999"):
        opened(root, "imagenet-sketch")
    with pytest.raises(UsageError) as raised:
        opened(root / "imagenet", "imagenet-a")
    for name in ("imagenet-adversarial", "imagenet-a"):
        assert name in str(raised.value)


def test_targets_are_told_apart(root: Path) -> None:
    assert all(len(opened(root, target.split)) for target in TASK.targets)
    by_name = {target.name: target for target in TASK.targets}
    assert len(by_name) == len(TASK.targets) == 6
    ranked = [target for target in TASK.targets if target.group == SUITE.ranking]
    assert [(target.name, target.among_present) for target in ranked] == [
        ("imagenetv2", False),
        ("imagenet-sketch", False),
        ("imagenet-a", True),  # among its 200 classes
        ("imagenet-r", True),
    ]
    for name in ("imagenet-a", "imagenet-r"):
        harder = by_name[f"{name}-1000way"]
        assert harder.split == by_name[name].split and not harder.among_present
        assert harder.group != by_name[name].group  # never averaged with one another


def test_names_of_the_classes_come_from_the_root(root: Path) -> None:
    with pytest.raises(UsageError) as raised:
        class_names(TASK, root)
    assert str(root / "imagenet" / "classes.txt") in str(raised.value)
    (root / "imagenet" / "classes.txt").write_text("\n".join(f"thing {i}" for i in range(1000)))
    assert class_names(TASK, root)[999] == "thing 999"


def test_the_protocol_fits() -> None:
    rules = protocol.load(SUITE.protocol)
    assert rules.seeds == len(domain_generalisation.SEEDS)
    for split in (rules.train_split, rules.test_split, rules.search_val_split):
        assert split in TASK.sizes
    assert SUITE.backbone.startswith("clip:") and rules.head == "text"
    # the task's own test split is the source, and no target says it a second time
    assert (TASK.group, rules.test_split) == ("Source", "val")
    assert rules.test_split not in {target.split for target in TASK.targets}
