"""The order of TensorFlow Datasets, and the slices of it that VTAB-1K consists of.

TFDS shuffles a split by sorting its keys by md5(split name + key), so that membership of
`train[:800]` follows from the keys alone (tensorflow_datasets 4.4.0, core/hashing.py and
core/shuffle.py). Only membership is certain: TFDS reads the shards of a large split interleaved,
and copies made by it may list the same members in another order.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TypeVar

from petlbench.errors import UsageError
from petlbench.prepare.examples import Example

Key = TypeVar("Key", str, int)

Slices = Mapping[str, tuple[str, int, int]]
"""Split of VTAB-1K -> (split of TFDS, start, stop) in the order of TFDS."""

WHOLE = 2**63
"""As a stop: to the end of the split."""


def ordered(salt: str, keys: Collection[Key]) -> list[Key]:
    """Keys in the order in which TFDS has them; the salt is the name of its split."""
    seed = hashlib.md5(salt.encode(), usedforsecurity=False)

    def digest(key: Key) -> bytes:  # big-endian, so bytes sort like TFDS' 128-bit integers
        copy = seed.copy()
        copy.update(str(key).encode())
        return copy.digest()

    return sorted(keys, key=digest)


def three_slices() -> Slices:
    """train[:800], validation[:200], test: of sources whose splits VTAB took as they are."""
    return {
        "train800": ("train", 0, 800),
        "val200": ("validation", 0, 200),
        "test": ("test", 0, WHOLE),
    }


def select(
    raw: Path,
    keys: Mapping[str, Collection[Key]],
    counts: Mapping[str, int],
    slices: Slices,
    example: Callable[[str, Key], Example],
) -> dict[str, list[Example]]:
    """The examples of VTAB-1K's splits: keys of every TFDS split -> examples of each slice.

    `example` is asked for those only, with the TFDS split and the key. Raises UsageError if a
    TFDS split has not as many keys as were published (`counts`): members would be others.
    """
    for split, count in counts.items():
        found, distinct = len(keys[split]), len(set(keys[split]))
        if found != count or distinct != count:
            twice = f", {found - distinct} of them twice" if distinct != found else ""
            raise UsageError(
                f"{raw}: its split {split!r} has {found} images{twice}; exactly {count} were "
                "published, and with others every member of VTAB-1K would change. Get the "
                "complete, unchanged data set."
            )
    orders = {split: ordered(split, those) for split, those in keys.items()}
    return {
        name: [example(split, key) for key in orders[split][start:stop]]
        for name, (split, start, stop) in slices.items()
    }
