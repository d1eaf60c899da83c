"""Labelled images, and which of them are trained on.

Where the data say themselves what is for testing, that stands. Where they do not, the rule is: of
every class, sorted by path as bytes, four fifths stay for training and the rest is for testing,
in the order of `numpy.random.RandomState(42).permutation`. A tenth of the training part, chosen
the same way, is what a search chooses on. The seed of a run has no part in it, so that every run
is tested on the same images, on every machine.

Images that belong together (of one patient) are never on two sides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.data import lists
from petlbench.data.split import Split
from petlbench.errors import UsageError, unknown

GIVEN = ("train", "val", "test")  # what data may say of an image
PARTS = ("train", "val", "trainval", "test")  # what can be opened
SEED = 42
TRAINING, TRAIN = 80, 90  # percent of all, and of the training part


@dataclass(frozen=True)
class Labelled:
    """Images of at least two classes; every sequence but `classes` has an entry for each image."""

    base: Path
    classes: tuple[str, ...]
    """In the order of the labels."""
    paths: Sequence[str]
    """Relative to `base`, with slashes."""
    labels: Sequence[int]
    layout: str
    splits: Sequence[str] = ()
    """`GIVEN` names; empty where the data do not say."""
    groups: Sequence[str] = ()
    """What must stay together; empty where nothing must."""


def open_split(
    data: Labelled,
    part: str,
    sample: Callable[[list[int]], list[int]] = lambda training: training,
    describe: Mapping[str, Any] | None = None,
) -> Split:
    """One of `PARTS`; `sample` may take fewer of the training part.

    Raises UsageError where there is no such part, or nothing in it.
    """
    chosen = members(data, part, sample)
    files = [data.base / data.paths[index] for index in chosen]
    labels = [data.labels[index] for index in chosen]
    listing = "\n".join(f"{data.paths[index]} {data.labels[index]}" for index in chosen)
    digest = hashlib.sha256(_bytes(listing)).hexdigest()
    split = lists.of_files(part, files, labels, digest)
    return replace(
        split,
        groups=[data.groups[index] for index in chosen] if data.groups else (),
        describe={**split.describe, "layout": data.layout, "split": rule(data), **(describe or {})},
    )


def members(
    data: Labelled,
    part: str,
    sample: Callable[[list[int]], list[int]] = lambda training: training,
) -> list[int]:
    """Indices of the images of that part, ascending."""
    if part not in PARTS:
        raise unknown("split", part, PARTS)
    training, test = sides(data)
    if part == "test":
        return test
    training = sample(training)
    if part == "trainval":
        return training
    train, val = choosing(data, training)
    if not val:
        raise UsageError(
            f"the {len(training)} training images of {data.base} are too few to choose settings "
            "on: none can be set aside for validation."
        )
    return train if part == "train" else val


def sides(data: Labelled) -> tuple[list[int], list[int]]:
    """Indices of what is trained on (for a search, in part), and of what is tested."""
    everything = range(len(data.paths))
    if data.splits:
        training = [index for index in everything if data.splits[index] != "test"]
        test = [index for index in everything if data.splits[index] == "test"]
    else:
        training, test = hold_out(data, everything, TRAINING)
    if not test:
        apart = ", of different groups," if data.groups else ""
        raise UsageError(
            f"no image of {data.base} can be set aside for testing: some class needs two images"
            f"{apart} of which one is trained on."
        )
    unseen = {data.labels[index] for index in test} - {data.labels[index] for index in training}
    if unseen:
        names = ", ".join(data.classes[label] for label in sorted(unseen))
        where = data.base.resolve()
        raise UsageError(f"{where} has test images but no training images of: {names}.")
    return training, test


def choosing(data: Labelled, training: Sequence[int]) -> tuple[list[int], list[int]]:
    """The training part in two: what a search trains on, and what it chooses on (or nothing)."""
    given = {data.splits[index] for index in training} if data.splits else set()
    if "val" in given:
        train = [index for index in training if data.splits[index] == "train"]
        return train, [index for index in training if data.splits[index] == "val"]
    return hold_out(data, training, TRAIN)


def hold_out(data: Labelled, items: Sequence[int], keep: int) -> tuple[list[int], list[int]]:
    """`keep` percent of every class, at least one image, and the others: both ascending."""
    held = _groups(data, items, keep) if data.groups else _images(data, items, keep)
    return [index for index in items if index not in held], sorted(held)


def shuffled(data: Labelled, items: Sequence[int], seed: int) -> list[list[int]]:
    """The items of each class, sorted by path as bytes and then permuted."""
    classes: list[list[int]] = [[] for _ in data.classes]
    for index in sorted(items, key=lambda index: _bytes(data.paths[index])):
        classes[data.labels[index]].append(index)
    orders = (np.random.RandomState(seed).permutation(len(mine)) for mine in classes)
    return [[mine[i] for i in order] for mine, order in zip(classes, orders, strict=True)]


def stay(count: int, keep: int) -> int:
    """How many of `count` images of a class are kept."""
    return min(count, max(1, count * keep // 100))


def _images(data: Labelled, items: Sequence[int], keep: int) -> set[int]:
    classes = shuffled(data, items, SEED)
    return {index for mine in classes for index in mine[stay(len(mine), keep) :]}


def _groups(data: Labelled, items: Sequence[int], keep: int) -> set[int]:
    """Whole groups, in random order: each that brings the classes nearer to what is wanted.

    Nearer: in the sum over the classes of how many images are still to be held out, or too many.
    The last images of a class always stay. Where no group is small enough, the one that is nearest.
    """
    names = sorted({data.groups[index] for index in items}, key=_bytes)
    number = {name: position for position, name in enumerate(names)}
    counts = np.zeros((len(names), len(data.classes)), dtype=np.int64)
    for index in items:
        counts[number[data.groups[index]], data.labels[index]] += 1
    left = counts.sum(axis=0)
    wanted = left - [stay(int(count), keep) for count in left]
    order = np.random.RandomState(SEED).permutation(len(names))
    spare = [position for position in order if _spares(left, counts[position])]
    nearest = min(spare, key=lambda position: abs(wanted - counts[position]).sum(), default=None)
    held = set()
    for position in spare:
        mine = counts[position]
        if abs(wanted - mine).sum() < abs(wanted).sum() and _spares(left, mine):
            wanted, left = wanted - mine, left - mine
            held.add(names[position])
    if not held and nearest is not None and wanted.any():
        held.add(names[nearest])
    return {index for index in items if data.groups[index] in held}


def _spares(left: NDArray[np.int64], mine: NDArray[np.int64]) -> bool:
    """Whether every class of a group has other images, too."""
    return bool((left > mine)[mine > 0].all())


def rule(data: Labelled) -> str:
    """How the images came to their sides, for the record."""
    if not data.splits:
        whole = ", groups whole" if data.groups else ""
        return f"{TRAINING}/{100 - TRAINING} per class{whole}, RandomState({SEED})"
    return "given, no group on two sides" if data.groups else "given"


def keep_apart(
    source: Path, kind: str, splits: Sequence[str], groups: Sequence[str], places: Sequence[str]
) -> None:
    """Refuse given splits with one group on two sides; `places` tell people where an image is."""
    first: dict[str, int] = {}
    problems = []
    for index, group in enumerate(groups):
        other = first.setdefault(group, index)
        if splits[other] != splits[index]:
            problems.append(
                f"{kind} {group!r} is in {splits[other]} ({places[other]}) and in "
                f"{splits[index]} ({places[index]})"
            )
    refuse(source, problems, "Each must be on one side only, or the test tells too much.")


def refuse(source: Path, problems: Iterable[str], hint: str = "") -> None:
    """Raise UsageError with the first few problems, where there are any."""
    found = list(problems)
    if found:
        more = [f"... and {len(found) - 5:,} more"] if len(found) > 5 else []
        lines = [f"{source} cannot be used:", *("  " + line for line in [*found[:5], *more]), hint]
        raise UsageError("\n".join(lines).rstrip())


def _bytes(text: str) -> bytes:
    """As UTF-8, file names that are not text included."""
    return text.encode("utf-8", "surrogateescape")
