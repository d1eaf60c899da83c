"""KITTI: the closest vehicle, and splits by drive."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from petlbench.errors import UsageError
from petlbench.prepare.sources import kitti

LINE = "{} 0.00 0 -1.57 10.0 20.0 30.0 40.0 1.5 1.6 4.0 0.1 1.6 {} -1.6\n"


@pytest.mark.parametrize(
    ("objects", "label"),
    [
        ([], 3),
        ([("Pedestrian", 1), ("Tram", 2), ("DontCare", -1000)], 3),
        ([("Car", 7.99)], 0),
        ([("Car", 8.0)], 0),  # not beyond 8 m
        ([("Van", 8.01)], 1),
        ([("Truck", 20.01), ("Car", 80)], 2),
        ([("Car", 80), ("Cyclist", 3), ("Truck", 9)], 1),
        ([("Car", -1.5)], 0),
    ],
)
def test_labels(tmp_path: Path, objects: list[tuple[str, float]], label: int) -> None:
    file = tmp_path / "000000.txt"
    file.write_text("".join(LINE.format(*thing) for thing in objects))
    assert kitti._label(file) == label


@pytest.mark.parametrize("text", ["Car 1 2 3\n", "Car " * 15, LINE.format("Car", -200)])
def test_other_labels_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "000000.txt"
    file.write_text(text)
    with pytest.raises(UsageError, match=r"000000\.txt"):
        kitti._label(file)


def test_a_drive_is_in_one_split(faked: Any) -> None:
    source, raw = faked("kitti")
    drives = kitti._drives(raw)
    found = {
        split: {drives[int(Path(e.key).stem)] for e in examples}
        for split, examples in source.splits(raw).items()
    }
    assert [len(those) for those in found.values()] == [16, 2, 2]
    assert len(set.union(*found.values())) == 20


def test_the_drives_are_those_that_tfds_draws() -> None:
    """The two draws of its seed 123, of 20 names; legacy generators never change."""
    drives = [f"drive_{number:02}" for number in range(20)]
    keys = kitti._by_drive(drives)
    found = {split: [int(key[:6]) for key in those] for split, those in keys.items()}
    assert found["test"] == [5, 14] and found["validation"] == [7, 11]
    assert sorted(found["train"] + [5, 7, 11, 14]) == list(range(20))


def test_other_mappings_are_refused(faked: Any) -> None:
    source, raw = faked("kitti")
    file = raw / "mapping" / "train_rand.txt"
    for text in ("0,1,2", "41", "x", ""):
        file.write_text(text)
        with pytest.raises(UsageError, match=r"train_rand\.txt: image 0 has"):
            source.splits(raw)
    file.write_text(",".join(str(number) for number in range(1, 40)))
    with pytest.raises(UsageError, match=r"has 39 images, .* 40 frames"):
        source.splits(raw)
