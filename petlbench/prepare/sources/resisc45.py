"""NWPU-RESISC45: a folder per class of 700 JPEGs, `NWPU-RESISC45/<class>/<class>_<number>.jpg`."""

from __future__ import annotations

from pathlib import Path

from petlbench.prepare.examples import Download, Example, by_class, of_file
from petlbench.prepare.order import select

TASKS = ("resisc45",)
TITLE = "NWPU-RESISC45"
LICENCE = "not stated"
HOMEPAGE = "http://www.escience.cn/people/JunweiHan/NWPU-RESISC45.html"
DOWNLOAD = (  # no checksum was ever published
    Download("https://1drv.ms/u/s!AmgKYzARBl5ca3HNaHIlzp_IXjs", "NWPU-RESISC45.rar", None, None),
)
NEEDS = (
    "NWPU-RESISC45/<class>/<class>_<3 digits>.jpg, 31,500 images, of NWPU-RESISC45.rar "
    "(extract it with unrar or 7z)",
)

NAMES = """
    airplane airport baseball_diamond basketball_court beach bridge chaparral church
    circular_farmland cloud commercial_area dense_residential desert forest freeway golf_course
    ground_track_field harbor industrial_area intersection island lake meadow medium_residential
    mobile_home_park mountain overpass palace parking_lot railway railway_station
    rectangular_farmland river roundabout runway sea_ice ship snowberg sparse_residential stadium
    storage_tank tennis_court terrace thermal_power_station wetland
"""
CLASSES = tuple(NAMES.split())
COUNTS = {"train": 31_500}
SLICES = {
    "train800": ("train", 0, 800),
    "val200": ("train", 18_900, 19_100),
    "test": ("train", 25_200, 31_500),
}


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are like `palace_palace_207.jpg`: class, underscore, file name."""
    found = by_class(raw / "NWPU-RESISC45", CLASSES, NEEDS, HOMEPAGE)

    def example(split: str, key: str) -> Example:
        label, file = found[key]
        return of_file(key, {"resisc45": label}, file)

    return select(raw, {"train": found}, COUNTS, SLICES, example)
