"""Oxford Flowers 102: which images are in which split, and their labels, are MATLAB files."""

from __future__ import annotations

from pathlib import Path

from petlbench.errors import UsageError
from petlbench.prepare.examples import Download, Example, load_mat, of_file, present
from petlbench.prepare.order import select, three_slices

TASKS = ("oxford_flowers102",)
TITLE = "Oxford Flowers 102"
LICENCE = "not stated"
HOMEPAGE = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
DOWNLOAD = (
    Download(
        f"{HOMEPAGE}102flowers.tgz",
        "102flowers.tgz",
        "sha256:2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
        344_862_509,
    ),
    Download(
        f"{HOMEPAGE}imagelabels.mat",
        "imagelabels.mat",
        "sha256:4903e94206bac23bf772aadf06451916df56b58fc483a62db32a97b82656651d",
        502,
    ),
    Download(
        f"{HOMEPAGE}setid.mat",
        "setid.mat",
        "sha256:46b8678f91fd95d3c8f4feab80d271a6c834a1dd896fe29fd3e6ad9ce5c8dccd",
        14_989,
    ),
)
NEEDS = ("jpg/image_<5 digits>.jpg, of 102flowers.tgz", "imagelabels.mat and setid.mat")

SETS = {"train": "trnid", "validation": "valid", "test": "tstid"}
COUNTS = {"train": 1_020, "validation": 1_020, "test": 6_149}
SLICES = three_slices()


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are like `image_00001.jpg`; numbers of images and classes begin at 1 in the files."""
    sets = present(raw / "setid.mat", NEEDS, HOMEPAGE)
    labels_file = present(raw / "imagelabels.mat", NEEDS, HOMEPAGE)
    (found,) = load_mat(labels_file, "labels")
    labels = [int(label) for label in found.reshape(-1)]
    keys = {
        split: [f"image_{int(number):05d}.jpg" for number in numbers.reshape(-1)]
        for split, numbers in zip(SETS, load_mat(sets, *SETS.values()), strict=True)
    }

    def example(split: str, key: str) -> Example:
        number = int(key[6:11])
        if not (1 <= number <= len(labels) and 1 <= labels[number - 1] <= 102):
            raise UsageError(f"{labels_file} has no label 1..102 of image {number} of {sets}.")
        return of_file(key, {"oxford_flowers102": labels[number - 1] - 1}, raw / "jpg" / key)

    return select(raw, keys, COUNTS, SLICES, example)
