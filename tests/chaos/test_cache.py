"""A decode cache that was damaged, swapped or copied, and images replaced under it.

No number may come of pixels that are not those of the images: what does not agree with its checksum
is decoded again.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLI, MakeTask
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from chaos.sweep import Sweep, assert_whole
from petlbench import home, plots
from petlbench.data import cache, lists
from petlbench.data.split import Split
from petlbench.store import Store

ONE = ("--methods", "linear", "--seeds", "1")
GEOMETRY = cache.Geometry(8, "bicubic")
Count = Callable[[str], None]


@pytest.fixture
def folder(sweep: Sweep, reference: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the sweep's cache, in use."""
    monkeypatch.setattr(plots, "draw", lambda *_: None)
    copy = Path(shutil.copytree(sweep.cache, tmp_path / "copy"))
    monkeypatch.setenv("PETLBENCH_CACHE", str(copy))
    return copy


@pytest.fixture
def one(cli: CLI, sweep: Sweep, folder: Path, tmp_path: Path) -> Path:
    """The results of a single run, left alone."""
    assert cli(*sweep.arguments(tmp_path / "one", *ONE)).code == 0
    return tmp_path / "one"


def arrays(folder: Path) -> list[Path]:
    return sorted(file for file in folder.glob("*.npy") if ".hashes" not in file.name)


def size(file: Path) -> int:
    return file.stat().st_size


def flip(file: Path, at: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1 << bit
    file.write_bytes(content)


def longer(file: Path) -> None:
    file.write_bytes(file.read_bytes() + bytes(100))


def swap(file: Path) -> None:
    """With all that lies beside it, for those of another split."""
    (other, *_) = (each for each in arrays(file.parent) if each != file)
    for suffix in (".npy", ".hashes.npy", ".json"):
        shutil.copy(other.with_suffix(suffix), file.with_suffix(suffix))


def another_of_the_same_shape(file: Path) -> None:
    """Only the array: its description stays."""
    pixels = np.load(file)
    np.save(file, pixels[::-1])


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut short": lambda file: os.truncate(file, size(file) // 2),
    "no pixels, header whole": lambda file: os.truncate(file, 128),
    "longer": longer,
    "zeros": lambda file: file.write_bytes(bytes(size(file))),
    "other pixels": lambda file: file.write_bytes(file.read_bytes()[:128].ljust(size(file))),
    "one bit of a pixel": lambda file: flip(file, size(file) // 2),
    "one bit of the digests": lambda file: flip(file.with_suffix(".hashes.npy"), -1),
    "one bit of the description": lambda file: flip(file.with_suffix(".json"), 100),
    "another split's": swap,
    "another order": another_of_the_same_shape,
    "gone": lambda file: file.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_was_damaged_is_never_trained_on(
    cli: CLI, sweep: Sweep, folder: Path, one: Path, tmp_path: Path, damage: str
) -> None:
    before = {file: np.load(file) for file in arrays(folder)}
    assert len(before) >= 2
    for file in before:
        DAMAGES[damage](file)
    assert cli(*sweep.arguments(tmp_path / "results", *ONE)).code == 0
    assert_whole(tmp_path / "results", one)
    read = [file for file, pixels in before.items() if np.array_equal(np.load(file), pixels)]
    assert len(read) >= 2  # those that the run read are whole again


@pytest.fixture
def split(tmp_path: Path, make_task: MakeTask) -> Split:
    """Twenty images."""
    make_task(tmp_path / "root", "t", {"train": 20})
    return lists.open_split(tmp_path / "root", "t", "train", classes=10)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Three images that cost nothing to decode."""
    root = tmp_path_factory.mktemp("three")
    files = [root / f"{shade}.png" for shade in range(3)]
    for shade, file in enumerate(files):
        Image.new("RGB", (8, 8), (shade, 0, 0)).save(file)
    return lists.of_files("train", files, [0, 1, 2], "")


@settings(max_examples=100)
@given(
    suffix=st.sampled_from([".npy", ".hashes.npy", ".json"]),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_no_flipped_bit_goes_unnoticed(three: Split, suffix: str, where: float, bit: int) -> None:
    expected = cache.load(three, GEOMETRY)
    pixels = expected.pixels.copy()
    file = cache.file_of(three, GEOMETRY).with_suffix(suffix)
    flip(file, int(where * size(file)), bit)
    found = cache.load(three, GEOMETRY)
    assert np.array_equal(found.pixels, pixels) and found.sha256 == expected.sha256
    assert found.digests.tolist() == expected.digests.tolist()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the arrays that were compared with their checksum: pixels have 4 axes."""
    sizes: list[int] = []
    sha256 = cache._sha256

    def watched(array: Any) -> str:
        if array.ndim == 4:
            sizes.append(array.nbytes)
        return sha256(array)

    monkeypatch.setattr(cache, "_sha256", watched)
    monkeypatch.setattr(home, "SETTLED", 0.0)
    return sizes


def test_pixels_are_read_through_once_and_when_they_were_touched(
    split: Split, hashed: list[int]
) -> None:
    """Not in every run: that would cost a large test set more than the run itself."""
    for _ in range(3):
        cache.load(split, GEOMETRY)
        time.sleep(0.02)  # the clock of a file system is coarse
    assert hashed == [20 * 3 * 8 * 8] * len(hashed) and len(hashed) <= 2
    hashed.clear()
    os.utime(cache.file_of(split, GEOMETRY))
    time.sleep(0.02)
    for _ in range(3):
        cache.load(split, GEOMETRY)
    assert len(hashed) == 1


def test_a_verified_cache_is_verified_again_where_its_times_were_put_back(
    split: Split, hashed: list[int]
) -> None:
    expected = cache.load(split, GEOMETRY).pixels.copy()
    time.sleep(0.02)
    cache.load(split, GEOMETRY)
    file = cache.file_of(split, GEOMETRY)
    times = file.stat()
    flip(file, -1)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert file.stat().st_mtime_ns == times.st_mtime_ns
    assert np.array_equal(cache.load(split, GEOMETRY).pixels, expected)


def test_a_copied_cache_is_verified_and_not_decoded_again(
    split: Split, hashed: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = cache.load(split, GEOMETRY).sha256
    shutil.copytree(home.cache_folder(), tmp_path / "copy")
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "copy"))
    hashed.clear()
    monkeypatch.setattr(cache, "_build", None)
    assert cache.load(split, GEOMETRY).sha256 == expected
    assert len(hashed) == 1


def test_what_a_killed_process_left_is_removed(split: Split) -> None:
    code = (
        "import os, sys, dataclasses\n"
        "from pathlib import Path\n"
        "from petlbench.data import cache, lists\n"
        "split = lists.open_split(Path(sys.argv[1]), 't', 'train', classes=10)\n"
        "read = lambda i: os._exit(9) if i == 15 else split.read(i)\n"
        "dying = dataclasses.replace(split, read=read)\n"
        "cache.load(dying, cache.Geometry(8, 'bicubic'), threads=1)\n"
    )
    root = split.files[0].parents[2]
    assert subprocess.run([sys.executable, "-c", code, root], timeout=120).returncode == 9
    assert len(list(home.cache_folder().glob("*.partial"))) == 1
    assert cache.load(split, GEOMETRY).pixels.any(axis=(1, 2, 3)).all()
    assert list(home.cache_folder().glob("*.partial")) == []


@pytest.mark.parametrize("how", ["write", "replace"])
def test_numbers_of_replaced_images_do_not_mix(
    cli: CLI, sweep: Sweep, folder: Path, tmp_path: Path, how: str
) -> None:
    """An image of the same name, size and time: the cache and the leaderboard notice."""
    images = Path(shutil.copytree(sweep.images, tmp_path / "shapes"))
    mine = ("--data-root", str(images), "--methods", "linear", "--seeds")
    results = tmp_path / "results"
    assert cli(*sweep.arguments(results, *mine, "1")).code == 0
    (before,), _ = Store(results).load()
    time.sleep(0.02)
    for image in images.rglob("*.png"):
        replace(image, how)
    done = cli(*sweep.arguments(results, *mine, "2"))
    done.refused("data differ between records", "Numbers on different data")
    records, problems = Store(results).load()
    assert before in records and len(records) == 2 and not problems
    assert records[0]["data"]["test"] != records[1]["data"]["test"]
    cli("leaderboard", "--results", results).refused(
        "data differ between records", "Numbers on different data"
    )
    # elsewhere they are a comparison of their own
    assert cli(*sweep.arguments(tmp_path / "new", *mine, "1")).code == 0


def replace(image: Path, how: str) -> None:
    """By its mirror image, in a file that looks the same from outside."""
    times = image.stat()
    mirrored = Image.open(image).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    target = image if how == "write" else image.with_suffix(".new")
    mirrored.save(target, "PNG")
    content = target.read_bytes()
    target.write_bytes(content.ljust(times.st_size, b"\0")[: times.st_size])
    target.replace(image)
    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    now = image.stat()
    assert (now.st_size, now.st_mtime_ns) == (times.st_size, times.st_mtime_ns)
