"""Suite medical: shares of a training set in five folds, one test set, patients on one side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from petlbench import protocol
from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.suites import medical
from petlbench.task import load_suite

SUITE = load_suite("medical")
BUSI = {"benign": 40, "malignant": 20, "normal": 11}


def write(base: Path, images: Mapping[str, int]) -> None:
    """Images with the names that BUSI has, and the masks beside them."""
    for name, count in images.items():
        (base / name).mkdir(parents=True)
        for index in range(1, count + 1):
            Image.new("RGB", (2, 2)).save(base / name / f"{name} ({index}).png")
            Image.new("1", (2, 2)).save(base / name / f"{name} ({index})_mask.png")
    Image.new("1", (2, 2)).save(base / name / f"{name} (1)_mask_1.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "busi", BUSI)
    return tmp_path


def opened(root: Path, name: str, part: str = "trainval", seed: int = 0) -> Split:
    (task,) = SUITE.select([name])
    return SUITE.open_split(task, part, root, seed)


def per_class(split: Split) -> list[int]:
    return [count for _, count in sorted(Counter(split.labels.tolist()).items())]


def names(split: Split) -> set[str]:
    return {file.name for file in split.files}


def test_the_tasks_are_data_sets_by_shares() -> None:
    assert len(SUITE.tasks) == len(medical.DATASETS) * len(medical.SHARES) == 18
    assert [task.classes for task in SUITE.tasks[:3]] == [3, 3, 8]
    assert {task.group for task in SUITE.tasks} == {f"{share} %" for share in medical.SHARES}
    assert not any(task.ordinal for task in SUITE.tasks)  # kinds, not grades
    assert SUITE.ranking == "mean of groups"


def test_declared_sizes_are_those_of_the_rule(tmp_path: Path) -> None:
    """BUSI has 780 images in full: what the task declares is what opens."""
    counts = {name: count for name, (_, count) in medical.DATASETS["busi"].items()}
    for name, count in counts.items():
        (tmp_path / "busi" / name).mkdir(parents=True)
        for index in range(count):
            (tmp_path / "busi" / name / f"{index}.png").touch()  # opened, not decoded
    for share in ("0.63", "12.5", "100"):
        (task,) = SUITE.select([f"busi@{share}"])
        for part, size in task.sizes.items():
            assert len(SUITE.open_split(task, part, tmp_path, 3)) == size, (share, part)


def test_four_fifths_of_each_class_are_for_training(root: Path) -> None:
    assert per_class(opened(root, "busi@100")) == [32, 16, 8]
    assert per_class(opened(root, "busi@100", "test")) == [8, 4, 3]


def test_every_class_has_at_least_one_training_image(root: Path) -> None:
    assert per_class(opened(root, "busi@0.63")) == [1, 1, 1]
    assert per_class(opened(root, "busi@12.5")) == [4, 2, 1]
    assert per_class(opened(root, "busi@25")) == [8, 4, 2]


@given(st.integers(1, 20_000), st.sampled_from(medical.SHARES))
def test_the_count_is_that_of_the_released_scripts(images: int, percent: str) -> None:
    share = float(percent) / 100
    assert medical._count(images, share) == max(1, int(images * share)) <= images


def test_folds_share_the_test_set_and_nothing_is_tested_that_was_trained_on(root: Path) -> None:
    tests = [opened(root, f"busi@{share}", "test", seed) for share in (0.63, 25) for seed in (0, 4)]
    assert len({split.members for split in tests}) == 1
    folds = [opened(root, "busi@25", seed=seed) for seed in range(5)]
    assert len({split.members for split in folds}) == 5
    assert all(not names(fold) & names(tests[0]) for fold in folds)
    assert [fold.describe["fold"] for fold in folds] == [0, 1, 2, 3, 4]
    assert tests[0].describe["split"] == "80/20 per class, RandomState(42)"


def test_smaller_shares_are_part_of_larger_ones(root: Path) -> None:
    parts = [names(opened(root, f"busi@{share}", seed=2)) for share in medical.SHARES]
    assert all(small <= large for small, large in pairwise(parts))


def test_at_the_whole_training_set_folds_differ_in_nothing(root: Path) -> None:
    assert len({opened(root, "busi@100", seed=seed).members for seed in range(5)}) == 1


def test_the_draw_is_pinned(root: Path) -> None:
    """RandomState over names sorted as bytes: the same on every machine, for good."""
    assert names(opened(root, "busi@12.5", seed=1)) == {
        *("benign (12).png", "benign (31).png", "benign (36).png", "benign (40).png"),
        *("malignant (12).png", "malignant (7).png", "normal (9).png"),
    }


def test_masks_are_no_images(root: Path) -> None:
    files = names(opened(root, "busi@100")) | names(opened(root, "busi@100", "test"))
    assert len(files) == sum(BUSI.values())
    assert not any("mask" in name for name in files)


def test_validation_is_taken_from_the_share(root: Path) -> None:
    whole, train, val = (opened(root, "busi@25", part) for part in ("trainval", "train", "val"))
    assert names(train) | names(val) == names(whole) and not names(train) & names(val)
    assert per_class(val) == [1, 1, 1]
    with pytest.raises(UsageError, match=r"3 training images of .* are too few to choose"):
        opened(root, "busi@0.63", "val")


def test_a_given_division_stands(tmp_path: Path) -> None:
    write(tmp_path / "busi" / "train", BUSI)
    write(tmp_path / "busi" / "test", {"benign": 3, "malignant": 2, "normal": 1})
    assert per_class(opened(tmp_path, "busi@100")) == [40, 20, 11]
    assert per_class(opened(tmp_path, "busi@12.5")) == [5, 2, 1]
    test = opened(tmp_path, "busi@12.5", "test")
    assert per_class(test) == [3, 2, 1] and test.describe["split"] == "given"
    write(tmp_path / "busi" / "val", {"benign": 1})
    with pytest.raises(UsageError, match="val is not used here: move its images into"):
        opened(tmp_path, "busi@100")


def patients(root: Path, rows: Mapping[str, str]) -> Path:
    file = root / "busi" / "patients.csv"
    file.write_text("file,patient\n" + "".join(f"{name},{who}\n" for name, who in rows.items()))
    return file


def pairs() -> dict[str, str]:
    """Two images of each patient."""
    images = [(name, index) for name, count in BUSI.items() for index in range(1, count + 1)]
    return {f"{name}/{name} ({i}).png": f"{name} {i // 2}" for name, i in images}


def test_patients_are_on_one_side(root: Path) -> None:
    plain = names(opened(root, "busi@100", "test"))
    patients(root, pairs())
    train, test = opened(root, "busi@100"), opened(root, "busi@100", "test")
    assert not set(train.groups) & set(test.groups)
    assert test.describe["split"] == "80/20 per class, groups whole, RandomState(42)"
    assert names(test) != plain
    # as near to 8, 4 and 3 as whole patients allow
    assert all(abs(n - wanted) <= 1 for n, wanted in zip(per_class(test), [8, 4, 3], strict=True))
    inner = opened(root, "busi@100", "train"), opened(root, "busi@100", "val")
    assert len(inner[1]) and not set(inner[0].groups) & set(inner[1].groups)


def test_a_patient_on_both_given_sides_is_named(tmp_path: Path) -> None:
    write(tmp_path / "busi" / "train", BUSI)
    write(tmp_path / "busi" / "test", {"benign": 1, "malignant": 1, "normal": 1})
    rows = {f"train/{name}": who for name, who in pairs().items()}
    rows |= {f"test/{name}/{name} (1).png": f"tested {name}" for name in BUSI}
    patients(tmp_path, rows)
    assert len(opened(tmp_path, "busi@100", "test")) == 3
    patients(tmp_path, rows | {"test/benign/benign (1).png": "benign 0"})
    with pytest.raises(UsageError) as raised:
        opened(tmp_path, "busi@100", "test")
    for part in ("patient 'benign 0'", "train/benign/benign (1).png", "test/benign/benign (1).png"):
        assert part in str(raised.value)


def test_mistakes_about_patients_are_told(root: Path) -> None:
    rows = pairs()
    first = next(iter(rows))
    del rows[first]
    file = patients(root, rows)
    with pytest.raises(UsageError) as raised:
        opened(root, "busi@100")
    assert f"{file} cannot be used:" in str(raised.value)
    assert f"it does not tell the patient of {first}" in str(raised.value)
    with patients(root, pairs()).open("a") as stream:
        stream.write(f"{first},somebody else\n")
    with pytest.raises(UsageError, match="is of 'somebody else' and 'benign 0'"):
        opened(root, "busi@100")
    file.write_text("image,patient\n")
    with pytest.raises(UsageError, match="the first line must name the columns file,patient,"):
        opened(root, "busi@100")


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(UsageError) as raised:
        opened(root, "covid@100")
    assert f"no folder {root / 'covid'}" in str(raised.value)
    assert str(root / "covid" / "COVID19") in str(raised.value)
    (root / "busi" / "normal").rename(root / "busi" / "healthy")
    with pytest.raises(UsageError, match="must be called benign, malignant, normal"):
        opened(root, "busi@100")
    (task,) = SUITE.select(["busi@100"])
    with pytest.raises(UsageError, match="--data-root"):
        SUITE.open_split(task, "test", None, 0)
    with pytest.raises(UsageError, match=r"Did you mean busi@0\.63"):
        SUITE.select(["busi@0.6"])


def test_the_protocol_fits_the_suite() -> None:
    rules = protocol.load(SUITE.protocol)
    named = (rules.train_split, rules.test_split, rules.search_train_split, rules.search_val_split)
    assert set(named) == set(SUITE.tasks[0].sizes)
    assert (rules.learning_rate, rules.head_learning_rate, rules.weight_decay) == (1e-3, 1e-4, 0.0)
    assert (rules.epochs, rules.batch_size, rules.seeds) == (100, 64, 5)
    assert rules.normalisation == "half" and not rules.drop_last  # 4 images are no whole batch
