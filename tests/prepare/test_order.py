"""Order and slices, up to the whole of the published data sets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench import prepare
from petlbench.errors import UsageError
from petlbench.prepare.examples import Example
from petlbench.prepare.order import ordered, select, three_slices
from petlbench.prepare.sources import dsprites, eurosat, resisc45, sun397

PUBLISHED = Path(__file__).resolve().parents[3] / "shared" / "splits" / "vtab1k_tfds_order.json"
EUROSAT = (3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000)
PCAM = {"train": "train", "validation": "valid", "test": "test"}

# Source -> keys of each split of TFDS, where they follow from the numbers of images.
KEYS: dict[str, Callable[[], dict[str, Collection[Any]]]] = {
    "cifar": lambda: {"train": range(50_000), "test": range(10_000)},
    "svhn": lambda: {"train": range(73_257), "test": range(26_032)},
    "dsprites": lambda: {"train": range(737_280)},
    "smallnorb": lambda: {"train": range(24_300), "test": range(24_300)},
    "clevr": lambda: {
        split: [f"CLEVR_{word}_{index:06d}.png" for index in range(count)]
        for split, word, count in (("train", "train", 70_000), ("validation", "val", 15_000))
    },
    "patch_camelyon": lambda: {
        split: [f"{PCAM[split]}_{row}" for row in range(count)]
        for split, count in (("train", 262_144), ("validation", 32_768), ("test", 32_768))
    },
    "eurosat": lambda: {
        "train": [
            f"{name}_{name}_{number}.jpg"
            for name, count in zip(eurosat.CLASSES, EUROSAT, strict=True)
            for number in range(1, count + 1)
        ]
    },
    "resisc45": lambda: {
        "train": [
            f"{name}_{name}_{number:03d}.jpg"
            for name in resisc45.CLASSES
            for number in range(1, 701)
        ]
    },
    "sun397": sun397.members,
}
# The first members of train800 (TFDS' first CIFAR ids are documented publicly).
FIRST = {
    "cifar": ["16399", "1680", "47917", "17307", "27051"],
    "dsprites": ["16399", "634903", "206287"],
    "clevr": ["CLEVR_train_043876.png"],
    "patch_camelyon": ["train_251464"],
    "eurosat": ["Forest_Forest_687.jpg", "Residential_Residential_188.jpg"],
    "resisc45": ["dense_residential_dense_residential_068.jpg", "palace_palace_207.jpg"],
    "sun397": ["/r/rope_bridge/sun_biqflnsoednmhvce.jpg"],
}


def bare(split: str, key: int | str) -> Example:
    return Example(str(key), {}, lambda: None, split)  # type: ignore[arg-type,return-value]


@given(st.lists(st.text(max_size=8), unique=True), st.text(max_size=5), st.randoms())
def test_the_order_is_that_of_the_keys_alone(keys: list[str], salt: str, chance: Any) -> None:
    keys = [key.encode("utf-8", "ignore").decode() for key in keys]
    found = ordered(salt, keys)
    assert sorted(found) == sorted(keys)
    numbers = [int(hashlib.md5((salt + key).encode()).hexdigest(), 16) for key in found]
    assert numbers == sorted(numbers)
    shuffled = list(keys)
    chance.shuffle(shuffled)
    if len(set(keys)) == len(keys):
        assert ordered(salt, shuffled) == found


def test_numbers_and_their_text_are_the_same_key() -> None:
    assert ordered("train", range(99)) == [int(k) for k in ordered("train", [*map(str, range(99))])]
    assert ordered("train", range(99)) != ordered("test", range(99))


def test_a_key_that_is_there_twice_is_refused() -> None:
    keys = {"train": ["a", "a"], "validation": ["b"], "test": ["c"]}
    counts = {"train": 2, "validation": 1, "test": 1}
    with pytest.raises(UsageError, match="2 images, 1 of them twice; exactly 2"):
        select(Path("RAW"), keys, counts, three_slices(), bare)


@pytest.mark.parametrize("name", list(KEYS))
def test_members_of_the_whole_data_sets(name: str) -> None:
    source: Any = prepare.sources()[name]
    found = select(Path("RAW"), KEYS[name](), source.COUNTS, source.SLICES, bare)
    keys = {split: [example.key for example in examples] for split, examples in found.items()}
    first = FIRST.get(name, [])
    assert keys["train800"][: len(first)] == first
    if not PUBLISHED.is_file():
        pytest.skip("the members of the whole data sets are not here to compare with")
    published = json.loads(PUBLISHED.read_text())
    for task in source.TASKS:
        assert keys["train800"] == [str(key) for key in published[task]["train800"]]
        assert keys["val200"] == [str(key) for key in published[task]["val200"]]
        assert keys["test"][:5] == [str(key) for key in published[task]["test_first5"]]
        assert len(keys["test"]) == published[task]["n_test"]
        for split, those in keys.items():
            digest = hashlib.sha256("\n".join(those).encode()).hexdigest()
            assert digest == published[task][f"sha256_{split}"], (task, split)


def empty_files(folder: Path, paths: list[str]) -> None:
    for parent in {(folder / path).parent for path in paths}:
        parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        (folder / path).touch()


def labels_agree(task: str, splits: dict[str, list[Example]]) -> None:
    if not PUBLISHED.is_file():
        pytest.skip("the labels of the whole data sets are not here to compare with")
    published = json.loads(PUBLISHED.read_text())[task]
    labels = {split: [e.labels[task] for e in examples] for split, examples in splits.items()}
    assert labels["train800"] == published["train800_labels"]
    assert labels["val200"] == published["val200_labels"]
    histogram = {str(k): n for k, n in enumerate(np.bincount(labels["test"]).tolist())}
    assert histogram == published["test_label_hist"]


def test_labels_of_the_whole_eurosat(tmp_path: Path) -> None:
    keys = KEYS["eurosat"]()["train"]
    paths = [f"2750/{key.partition('_')[0]}/{key.partition('_')[2]}" for key in keys]
    empty_files(tmp_path, paths)
    labels_agree("eurosat", eurosat.splits(tmp_path))


def test_labels_of_the_whole_sun397() -> None:
    def labelled(split: str, key: str) -> Example:
        return Example(key, {"sun397": labels[split][key]}, lambda: None, split)  # type: ignore

    labels = sun397.members()
    labels_agree("sun397", select(Path("RAW"), labels, sun397.COUNTS, sun397.SLICES, labelled))


def test_labels_of_the_whole_resisc45(tmp_path: Path) -> None:
    paths = [f"{n}/{n}_{i:03d}.jpg" for n in resisc45.CLASSES for i in range(1, 701)]
    empty_files(tmp_path / "NWPU-RESISC45", paths)
    labels_agree("resisc45", resisc45.splits(tmp_path))


def test_labels_of_the_whole_dsprites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the classes of its documentation: y changes first, then x, then orientation."""
    rows = np.arange(737_280)
    zeros = np.zeros_like(rows)
    classes = np.stack([zeros, zeros, zeros, rows // 1024 % 40, rows // 32 % 32, rows % 32], axis=1)

    def blocks() -> Iterator[Any]:
        for _ in range(90):
            yield np.zeros((8192, 64, 64), dtype=np.uint8)

    monkeypatch.setattr(dsprites, "_open_hdf5", lambda file: (classes, blocks()))
    (tmp_path / f"{dsprites.NAME}.hdf5").touch()
    splits = dsprites.splits(tmp_path)
    for task in dsprites.TASKS:
        labels_agree(task, splits)
