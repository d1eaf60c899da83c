"""SUN397, in the partition and at the size of TFDS' `sun397/tfds`.

That partition is random and kept as lists by TFDS; those members that VTAB-1K consists of come
with petlbench (`sun397_members.txt.xz`), so that only their images need to be there. Of the two
images that TFDS once could not decode neither is a member.

`sun397/tfds` scales images of more than 120,000 pixels down to that, linearly and without
smoothing, and encodes them as JPEG. Its description says quality 72, its code leaves quality to
OpenCV, whose default is 95 (tensorflow_datasets 4.4.0 and 4.9.9, `sun397`): the code is followed.
"""

from __future__ import annotations

import lzma
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from petlbench.prepare.examples import Download, Example, of_file, present
from petlbench.prepare.opencv import jpeg, scale
from petlbench.prepare.order import WHOLE, select

TASKS = ("sun397",)
TITLE = "SUN397"
LICENCE = "not stated"
HOMEPAGE = "https://vision.princeton.edu/projects/2010/SUN/"
DOWNLOAD = (
    Download(
        "https://vision.princeton.edu/projects/2010/SUN/SUN397.tar.gz",
        "SUN397.tar.gz",
        "sha256:f404130965a7ad77bed5ececc71e720ab50f3cc1e1bb257257610d38f3b928ec",
        39_077_296_924,
    ),
)
NEEDS = ("SUN397/<letter>/<class>/.../sun_<name>.jpg, of SUN397.tar.gz",)

COUNTS = {"train": 800, "validation": 200, "test": 21_750}  # of the list of members
SLICES = {
    "train800": ("train", 0, WHOLE),
    "val200": ("validation", 0, WHOLE),
    "test": ("test", 0, WHOLE),
}
PIXELS, QUALITY = 120_000, 95


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are like `/a/abbey/sun_aaaaaaaaaaaaaaaa.jpg`: paths below SUN397."""
    base = present(raw / "SUN397", NEEDS, HOMEPAGE)
    labels = members()

    def example(split: str, key: str) -> Example:
        return of_file(key, {"sun397": labels[split][key]}, base / key[1:], _shrink)

    return select(raw, labels, COUNTS, SLICES, example)


def members() -> dict[str, dict[str, int]]:
    """Split of TFDS -> key -> label."""
    packed = resources.files(__package__).joinpath("sun397_members.txt.xz").read_bytes()
    found: dict[str, dict[str, int]] = {}
    folder = ""
    listed: list[tuple[str, list[tuple[str, str]]]] = []
    for line in lzma.decompress(packed).decode().splitlines():
        if line.startswith("["):
            listed.append((line.strip("[]"), []))
        elif line.startswith("/"):
            folder = line
        elif not line.startswith("#"):
            listed[-1][1].append((folder, line))
    classes = {
        name: i for i, name in enumerate(sorted({f for _, names in listed for f, _ in names}))
    }
    for split, names in listed:
        found[split] = {f"{folder}/sun_{name}.jpg": classes[folder] for folder, name in names}
    return found


def _shrink(image: Image.Image) -> Image.Image:
    """At most 120,000 pixels; as OpenCV reads them, which turns images as their EXIF says."""
    pixels = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    size = pixels.shape[0] * pixels.shape[1]
    return jpeg(scale(pixels, (PIXELS / size) ** 0.5) if size > PIXELS else pixels, QUALITY)
