"""KITTI object detection: how far the closest vehicle is.

Labels are text, an object a line: type, truncated, occluded, alpha, four corners, three sizes,
x, y, z in metres, rotation. The development kit says which drive an image is from:
`mapping/train_rand.txt` has, for every image, the (1-based) number of its line in
`mapping/train_mapping.txt`, whose lines are `date drive frame`.

Splits are those of TFDS: a tenth of the drives to test and another to validate. From the mapping
of the real development kit (141 drives) this makes the published 6,347, 423 and 711 images.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, lines, of_file, present
from petlbench.prepare.order import select, three_slices

TASKS = ("kitti",)
TITLE = "KITTI object detection 2012"
LICENCE = "CC BY-NC-SA 3.0 (not verified)"
HOMEPAGE = "https://www.cvlibs.net/datasets/kitti/eval_object.php"
_BUCKET = "https://s3.eu-central-1.amazonaws.com/avg-kitti"
DOWNLOAD = (
    Download(
        f"{_BUCKET}/data_object_image_2.zip",
        "data_object_image_2.zip",
        "sha256:351c5a2aa0cd9238b50174a3a62b846bc5855da256b82a196431d60ff8d43617",
        12_569_945_557,
    ),
    Download(
        f"{_BUCKET}/data_object_label_2.zip",
        "data_object_label_2.zip",
        "sha256:4efc76220d867e1c31bb980bbf8cbc02599f02a9cb4350effa98dbb04aaed880",
        5_601_213,
    ),
    Download(
        f"{_BUCKET}/devkit_object.zip",
        "devkit_object.zip",
        "sha256:ce0b76b69c0c5f89690a0d65b7302bbbdb962a0c7e8aba6efc7050d1b04b4cf1",
        63_794,
    ),
)
NEEDS = (
    "training/image_2/<6 digits>.png, of data_object_image_2.zip",
    "training/label_2/<6 digits>.txt, of data_object_label_2.zip",
    "mapping/train_rand.txt and mapping/train_mapping.txt, of devkit_object.zip",
)

COUNTS = {"train": 6_347, "validation": 423, "test": 711}
SLICES = three_slices()
VEHICLES = ("Car", "Van", "Truck")
NOBODY = 1000.0  # metres: no vehicle at all
FAR = np.array([-100, 8, 20, 999], dtype=np.float32)
"""Distance of the closest vehicle, in metres, at which the next class begins."""


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are the names of the images, `000000.png`."""
    keys = _by_drive(_drives(raw))

    def example(split: str, key: str) -> Example:
        objects = present(raw / "training" / "label_2" / f"{Path(key).stem}.txt", NEEDS, HOMEPAGE)
        file = raw / "training" / "image_2" / key
        return of_file(key, {"kitti": _label(objects)}, file)

    return select(raw, keys, COUNTS, SLICES, example)


def _drives(raw: Path) -> list[str]:
    """The drive that each image is from."""
    numbers = present(raw / "mapping" / "train_rand.txt", NEEDS, HOMEPAGE)
    mapping = present(raw / "mapping" / "train_mapping.txt", NEEDS, HOMEPAGE)
    frames = [line.split() for line in lines(mapping)]
    drives = []
    for image, text in enumerate(",".join(lines(numbers)).split(",")):
        number = int(text) if text.strip().isdecimal() else 0
        if not 1 <= number <= len(frames) or len(frames[number - 1]) != 3:
            raise UsageError(f"{numbers}: image {image} has {text!r}, no line of {mapping}.")
        drives.append(frames[number - 1][1])
    if len(drives) != len(frames):
        raise UsageError(f"{numbers} has {len(drives)} images, {mapping} {len(frames)} frames.")
    return drives


def _by_drive(drives: list[str]) -> dict[str, list[str]]:
    """Split of TFDS -> names of images; which drives is drawn with numpy's legacy generator."""
    draw = np.random.RandomState(123)
    names = sorted(set(drives))
    tenth = max(1, len(names) // 10)
    test = set(draw.choice(names, tenth, replace=False).tolist())
    rest = [name for name in names if name not in test]
    validation = set(draw.choice(rest, tenth, replace=False).tolist())
    keys: dict[str, list[str]] = {split: [] for split in COUNTS}
    for image, drive in enumerate(drives):
        split = "test" if drive in test else "validation" if drive in validation else "train"
        keys[split].append(f"{image:06d}.png")
    return keys


def _label(file: Path) -> int:
    """The last threshold that the closest vehicle lies behind; 3 without any."""
    closest = NOBODY
    for line in lines(file):
        fields = line.split()
        try:
            kind, z = fields[0], float(fields[13])
        except (IndexError, ValueError) as error:
            raise UsageError(f"{file}: {line[:80]!r} is not an object of KITTI.") from error
        if kind in VEHICLES:
            closest = min(closest, z)
    passed = np.flatnonzero(np.float32(closest) > FAR)
    if not len(passed):
        raise UsageError(f"{file} has a vehicle at {closest} m.")
    return int(passed[-1])
