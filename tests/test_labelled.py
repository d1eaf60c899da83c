"""The rule that divides images: stratified, whole groups, and the same on every machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.data import labelled
from petlbench.data.labelled import Labelled
from petlbench.errors import UsageError


def data(labels: list[int], groups: list[str] | None = None, splits: str = "") -> Labelled:
    """Images 000.png, 001.png, ...; `splits` has a letter for each: r(ain), v(al), t(est)."""
    names = {"r": "train", "v": "val", "t": "test"}
    return Labelled(
        Path("data"),
        tuple(f"class {label}" for label in range(max(labels) + 1)),
        [f"{index:03}.png" for index in range(len(labels))],
        labels,
        "made up",
        [names[letter] for letter in splits],
        groups or (),
    )


many_labels = st.lists(st.integers(0, 3), min_size=1, max_size=60)


@given(many_labels, st.sampled_from([labelled.TRAINING, labelled.TRAIN]))
def test_every_class_is_divided_in_the_same_proportion(labels: list[int], keep: int) -> None:
    images = data(labels)
    kept, held = labelled.hold_out(images, range(len(labels)), keep)
    assert sorted(kept + held) == list(range(len(labels)))
    assert kept == sorted(kept) and held == sorted(held)
    for label in set(labels):
        stays = sum(labels[index] == label for index in kept)
        assert stays == max(1, int(labels.count(label) * keep / 100 + 1e-9))


@given(many_labels, st.randoms())
def test_the_order_in_which_a_disk_lists_files_does_not_matter(
    labels: list[int], random: Random
) -> None:
    images = data(labels)
    order = list(range(len(labels)))
    random.shuffle(order)
    other = dataclasses.replace(
        images, paths=[images.paths[i] for i in order], labels=[labels[i] for i in order]
    )
    for keep in (labelled.TRAINING, labelled.TRAIN):
        held = [labelled.hold_out(each, range(len(labels)), keep)[1] for each in (images, other)]
        assert {images.paths[i] for i in held[0]} == {other.paths[i] for i in held[1]}


def test_the_images_are_pinned() -> None:
    """What numpy's legacy generator draws does not change; a change here changes every number."""
    images = data([0] * 10 + [1] * 5)
    # permutations of 10 and of 5: 8 1 5 0 7 2 9 4 | 3 6 and 1 4 2 0 | 3
    assert labelled.members(images, "test") == [3, 6, 10 + 3]
    assert labelled.members(images, "val") == [8, 12]


grouped = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 11)), min_size=1, max_size=80)


@given(grouped, st.sampled_from([labelled.TRAINING, labelled.TRAIN]))
def test_groups_stay_whole_and_every_class_can_be_trained(
    items: list[tuple[int, int]], keep: int
) -> None:
    labels, groups = [label for label, _ in items], [f"patient {group}" for _, group in items]
    images = data(labels, groups)
    kept, held = labelled.hold_out(images, range(len(items)), keep)
    assert sorted(kept + held) == list(range(len(items)))
    assert not {groups[i] for i in kept} & {groups[i] for i in held}
    assert {labels[i] for i in kept} == set(labels)
    # at most twice what is wanted, as each group came nearer to it; or else one group alone
    wanted = sum(labels.count(c) - labelled.stay(labels.count(c), keep) for c in set(labels))
    assert len(held) <= 2 * wanted or len({groups[i] for i in held}) == 1
    # nothing only where every group has all there is of a class, or nothing is wanted
    owners = {
        c: {g for g, label in zip(groups, labels, strict=True) if label == c} for c in set(labels)
    }
    sole = {group for mine in owners.values() if len(mine) == 1 for group in mine}
    assert bool(held) == bool(wanted and set(groups) - sole)


@given(st.integers(1, 4), st.integers(5, 40))
def test_small_groups_of_one_class_are_stratified_exactly(classes: int, size: int) -> None:
    """Where every image is a group of its own, groups are no obstacle."""
    labels = [label for label in range(classes) for _ in range(size)]
    images = data(labels, [str(index) for index in range(len(labels))])
    _, held = labelled.hold_out(images, range(len(labels)), labelled.TRAINING)
    for label in range(classes):
        assert sum(labels[i] == label for i in held) == size - size * 80 // 100


def test_parts_are_disjoint_and_whole() -> None:
    images = data([0, 1] * 25)
    parts = {part: set(labelled.members(images, part)) for part in labelled.PARTS}
    assert parts["train"] | parts["val"] == parts["trainval"]
    assert not parts["train"] & parts["val"] and not parts["trainval"] & parts["test"]
    assert parts["trainval"] | parts["test"] == set(range(50))
    assert [len(parts[part]) for part in labelled.PARTS] == [36, 4, 40, 10]


def test_given_splits_stand() -> None:
    images = data([0, 1, 0, 1, 0, 1], splits="rrvvtt")
    found = {part: labelled.members(images, part) for part in labelled.PARTS}
    assert found == {"train": [0, 1], "val": [2, 3], "trainval": [0, 1, 2, 3], "test": [4, 5]}


def test_validation_is_taken_from_training_images_where_it_is_not_given() -> None:
    images = data([0, 1] * 11, splits="r" * 20 + "tt")
    assert labelled.members(images, "test") == [20, 21]
    assert len(labelled.members(images, "val")) == 2
    assert set(labelled.members(images, "val")) < set(labelled.members(images, "trainval"))


def test_the_identity_of_a_split_is_that_of_its_images() -> None:
    images = data([0, 1] * 25)
    split = labelled.open_split(images, "test")
    assert split.labels.tolist() == [images.labels[i] for i in labelled.members(images, "test")]
    assert [file.name for file in split.files] == [
        images.paths[i] for i in labelled.members(images, "test")
    ]
    assert split.members == labelled.open_split(images, "test").members
    assert split.members != labelled.open_split(images, "trainval").members
    relabelled = dataclasses.replace(images, labels=[1, 0] * 25)
    assert labelled.open_split(relabelled, "test").members != split.members
    assert split.describe["split"] == "80/20 per class, RandomState(42)"


def test_groups_go_with_their_images() -> None:
    groups = [str(index // 2) for index in range(50)]
    split = labelled.open_split(data([0] * 24 + [1] * 26, groups), "test")
    assert len(split.groups) == len(split) > 0
    assert all(groups.count(group) == list(split.groups).count(group) for group in split.groups)
    assert split.describe["split"] == "80/20 per class, groups whole, RandomState(42)"


@pytest.mark.parametrize(
    ("images", "part", "message"),
    [
        (data([0, 1]), "tset", "unknown split 'tset'. Did you mean test?"),
        (data([0, 1]), "test", "some class needs two images of which one is trained on."),
        (data([0, 0, 1, 1]), "val", "2 training images of data are too few to choose settings on"),
        (data([0, 0, 1, 1]), "train", "2 training images of data are too few"),
        (data([0, 0, 1, 1], ["a"] * 4), "test", "two images, of different groups, of which one"),
        (data([0, 1, 2, 1], splits="rrtt"), "trainval", "no training images of: class 2."),
    ],
)
def test_what_cannot_be_divided_is_told(images: Labelled, part: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        labelled.open_split(images, part)
    assert message in str(raised.value)


def test_a_group_on_two_sides_is_named() -> None:
    places = [f"line {number}" for number in range(2, 6)]
    sides, groups = ["train", "train", "test", "val"], ["a", "b", "a", "b"]
    with pytest.raises(UsageError) as raised:
        labelled.keep_apart(Path("x.csv"), "patient", sides, groups, places)
    text = str(raised.value)
    assert "patient 'a' is in train (line 2) and in test (line 4)" in text
    assert "patient 'b' is in train (line 3) and in val (line 5)" in text
    labelled.keep_apart(Path("x.csv"), "patient", sides, ["a", "b", "c", "d"], places)


def test_only_the_first_problems_are_shown() -> None:
    with pytest.raises(UsageError) as raised:
        labelled.refuse(Path("x.csv"), [f"problem {number}" for number in range(1005)])
    assert str(raised.value).splitlines()[-2:] == ["  problem 4", "  ... and 1,000 more"]
