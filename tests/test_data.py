"""Lists are read strictly; decoded images are cached once, and never stale."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from petlbench.data import cache, lists
from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError

MakeTask = Callable[..., Path]
SMALL = {"train": 5, "test": 3}


@pytest.fixture
def root(tmp_path: Path, make_task: MakeTask) -> Path:
    """A data root with the small task `t` of 10 classes."""
    make_task(tmp_path / "data", "t", SMALL)
    return tmp_path / "data"


def open_train(root: Path) -> Split:
    return lists.open_split(root, "t", "train", classes=10, expected=5)


def cached_files(kind: str = "*.npy") -> list[Path]:
    return sorted(cache.cache_folder().glob(kind))


# Lists


def test_a_list_is_read(root: Path) -> None:
    split = open_train(root)
    assert (split.name, len(split), split.labels.tolist()) == ("train", 5, [0, 1, 2, 3, 4])
    assert split.labels.dtype == np.int64
    image = split.read(0)
    assert (image.mode, image.size) == ("RGB", (8, 8))


names = st.text(
    st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from(" .-_é"),
    min_size=1,
    max_size=12,
).map(lambda text: f"i{text}.png".replace("/", "_"))


@given(st.lists(st.tuples(names, st.integers(0, 9)), min_size=1, max_size=20))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_list_comes_back(tmp_path: Path, items: list[tuple[str, int]]) -> None:
    (tmp_path / "t").mkdir(exist_ok=True)
    file = tmp_path / "t" / "train.txt"
    file.write_text("".join(f"images/{name} {label}\n" for name, label in items), "utf-8")
    split = lists.open_split(tmp_path, "t", "train", classes=10)
    assert split.labels.tolist() == [label for _, label in items]
    for index, (name, _) in enumerate(items):
        with pytest.raises(RunError) as raised:
            split.read(index)  # no such image: the message tells which path was read
        assert str(tmp_path / "t" / "images" / name) in str(raised.value)
    # the identity of the split depends on names, labels and their order
    again = lists.open_split(tmp_path, "t", "train", classes=10)
    assert again.members == split.members
    file.write_text("".join(f"images/{n} {label}\n" for n, label in [*items, ("x", 0)]), "utf-8")
    assert lists.open_split(tmp_path, "t", "train", classes=10).members != split.members


@pytest.mark.parametrize("text", ["a.png 1\r\nb c.png 2\r\n", "\n a.png 1 \n\n\tb c.png 2\n\n"])
def test_blank_lines_and_line_ends_do_not_matter(root: Path, text: str) -> None:
    (root / "t" / "train.txt").write_bytes(b"a.png 1\nb c.png 2")
    plain = lists.open_split(root, "t", "train", classes=10)
    (root / "t" / "train.txt").write_bytes(text.encode())
    split = lists.open_split(root, "t", "train", classes=10)
    assert split.labels.tolist() == [1, 2]
    assert split.members == plain.members


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png", "line 3: 'a.png' is not 'relative/path label'."),
        ("a.png one", "is not 'relative/path label'."),
        ("a.png\t1", "is not 'relative/path label'."),
        ("a.png,1", "is not 'relative/path label'."),
        ("a.png 1.0", "is not 'relative/path label'."),
        ("a.png +1", "is not 'relative/path label'."),
        ("a.png 1_0", "is not 'relative/path label'."),
        ("a.png ١", "is not 'relative/path label'."),
        ("a.png 99999999999999999999", "is not 'relative/path label'."),
        ("7", "is not 'relative/path label'."),
        ("a.png 10", "line 3: 'a.png 10': the label must be in 0..9."),
        ("a.png -1", "the label must be in 0..9."),
        ("/etc/a.png 1", "the path must stay inside"),
        ("../a.png 1", "the path must stay inside"),
        ("images/../../a.png 1", "the path must stay inside"),
    ],
)
def test_a_bad_line_is_named(root: Path, line: str, message: str) -> None:
    file = root / "t" / "train.txt"
    file.write_text(f"images/00.png 0\n\n{line}\nimages/01.png 1\n")
    with pytest.raises(UsageError) as raised:
        open_train(root)
    assert f"{file}, line 3: " in str(raised.value)
    assert message in str(raised.value)


def test_a_very_long_line_is_shortened(root: Path) -> None:
    (root / "t" / "train.txt").write_text("x" * 100_000)
    with pytest.raises(UsageError) as raised:
        open_train(root)
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "train.txt lists no images."),
        (b"\n \n", "train.txt lists no images."),
        (b"a.png 1\n", "train.txt lists 1 images; 5 are expected."),
        (b"\xff\xfe\x00\x01", "cannot be read as a list of images"),
    ],
)
def test_a_bad_list_is_named(root: Path, content: bytes, message: str) -> None:
    (root / "t" / "train.txt").write_bytes(content)
    with pytest.raises(UsageError) as raised:
        open_train(root)
    assert message in str(raised.value) and str(root) in str(raised.value)


def test_what_is_missing_is_named(root: Path) -> None:
    with pytest.raises(UsageError, match="--data-root"):
        lists.open_split(None, "t", "train", classes=10)
    with pytest.raises(UsageError) as raised:
        lists.open_split(root, "u", "train", classes=10)
    assert str(raised.value) == f"no folder {root / 'u'}"
    with pytest.raises(UsageError) as raised:
        lists.open_split(root, "t", "val", classes=10)
    assert str(raised.value) == f"no list file {root / 't' / 'val.txt'}"


def test_a_missing_or_corrupt_image_is_named(root: Path) -> None:
    split, image = open_train(root), root / "t" / "images" / "02 of 20.png"
    whole = image.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"not an image"):
        image.write_bytes(content)
        with pytest.raises(RunError) as raised:
            cache.load(split, 8, "bicubic")
        assert str(image) in str(raised.value)
    image.unlink()
    with pytest.raises(RunError) as raised:
        cache.load(split, 8, "bicubic")
    assert f"cannot read image {image}: No such file" in str(raised.value)
    assert cached_files("*") == cached_files("*.lock")  # nothing half-written


def test_a_decompression_bomb_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(RunError, match="refusing image"):
        open_train(root).read(0)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_every_kind_of_image_becomes_rgb(root: Path, mode: str) -> None:
    split, image = open_train(root), root / "t" / "images" / "00 of 20.png"
    Image.new(mode, (5, 7)).save(image, "TIFF" if mode in ("CMYK", "F") else "PNG")
    assert cache.load(split, 8, "bicubic").pixels.shape == (5, 3, 8, 8)


# Cache


@pytest.mark.parametrize("resize", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [5, 8, 17])
def test_pixels_are_those_of_pil(root: Path, size: int, resize: str) -> None:
    images = cache.load(open_train(root), size, resize)
    assert images.pixels.shape == (5, 3, size, size) and images.pixels.dtype == np.uint8
    for index, pixels in enumerate(images.pixels):
        with Image.open(root / "t" / "images" / f"{index:02} of 20.png") as image:
            rule = Image.Resampling[resize.upper()]
            expected = np.asarray(image.convert("RGB").resize((size, size), rule))
        assert np.array_equal(pixels.transpose(1, 2, 0), expected)
    assert images.labels.tolist() == [0, 1, 2, 3, 4]


def counting(split: Split) -> tuple[Split, list[int]]:
    """The split, and the list of the indices that are decoded."""
    decoded: list[int] = []

    def read(index: int) -> Any:
        decoded.append(index)
        return split.read(index)

    return dataclasses.replace(split, read=read), decoded


def test_images_are_decoded_once(root: Path) -> None:
    split, decoded = counting(open_train(root))
    steps: list[tuple[int, int]] = []
    first = cache.load(split, 8, "bicubic", lambda done, total: steps.append((done, total)))
    again = cache.load(split, 8, "bicubic", lambda done, total: steps.append((done, total)))
    assert decoded == [0, 1, 2, 3, 4]
    assert steps == [(i, 5) for i in range(1, 6)]
    assert np.array_equal(first.pixels, again.pixels) and first.sha256 == again.sha256
    assert len(cached_files()) == 1
    cache.load(split, 9, "bicubic")
    cache.load(split, 8, "bilinear")
    assert len(cached_files()) == 3


def test_writing_to_the_array_does_not_change_the_cache(root: Path) -> None:
    first = cache.load(open_train(root), 8, "bicubic")
    before = cached_files()[0].read_bytes()
    first.pixels[:] = 0
    del first
    assert cached_files()[0].read_bytes() == before
    assert cache.load(open_train(root), 8, "bicubic").pixels.any()


def test_the_digest_tells_pixels_and_labels(root: Path) -> None:
    split = open_train(root)
    first = cache.load(split, 8, "bicubic")
    relabelled = dataclasses.replace(split, labels=split.labels[::-1].copy())
    assert cache.load(relabelled, 8, "bicubic").sha256 != first.sha256
    assert cache.load(split, 9, "bicubic").sha256 != first.sha256


@pytest.mark.parametrize("restore", [False, True], ids=["new mtime", "same size, old mtime"])
@pytest.mark.parametrize("how", ["write", "replace"])
def test_a_changed_image_is_decoded_again(root: Path, how: str, restore: bool) -> None:
    split, image = open_train(root), root / "t" / "images" / "03 of 20.png"
    first = cache.load(split, 8, "bicubic")
    stat, size = image.stat(), image.stat().st_size
    time.sleep(0.02)  # the clock of the file system is coarse
    target = image if how == "write" else image.with_suffix(".new")
    Image.new("RGB", (8, 8), (1, 2, 3)).save(target, "BMP")
    if restore:
        content = target.read_bytes()
        target.write_bytes(content + b"\0" * (size - len(content)))
    target.replace(image)
    if restore:
        assert image.stat().st_size == size
        os.utime(image, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    again = cache.load(split, 8, "bicubic")
    assert again.pixels[3, :, 0, 0].tolist() == [1, 2, 3]
    assert again.sha256 != first.sha256
    assert np.array_equal(again.pixels[:3], first.pixels[:3])


def test_the_same_files_in_another_folder_are_another_split(
    tmp_path: Path, root: Path, make_task: MakeTask
) -> None:
    cache.load(open_train(root), 8, "bicubic")
    make_task(tmp_path / "other", "t", SMALL)
    cache.load(open_train(tmp_path / "other"), 8, "bicubic")
    assert len(cached_files()) == 2


@pytest.mark.parametrize("length", [0, 1, 10, 200, -1])
def test_a_truncated_file_is_built_again(root: Path, length: int) -> None:
    first = cache.load(open_train(root), 8, "bicubic")
    expected = first.pixels.copy()
    del first
    (file,) = cached_files()
    file.write_bytes(file.read_bytes()[:length])
    again = cache.load(open_train(root), 8, "bicubic")
    assert np.array_equal(again.pixels, expected)


@pytest.mark.parametrize("content", [None, "", "{", "{}", "[]", "3"])
def test_a_damaged_description_is_built_again(root: Path, content: str | None) -> None:
    first = cache.load(open_train(root), 8, "bicubic")
    (sidecar,) = cached_files("*.json")
    if content is None:
        sidecar.unlink()
    else:
        sidecar.write_text(content)
    assert cache.load(open_train(root), 8, "bicubic").sha256 == first.sha256
    assert "sha256" in json.loads(sidecar.read_text())


@pytest.mark.parametrize("array", [np.zeros((5, 3, 8, 7), np.uint8), np.zeros((5, 3, 8, 8))])
def test_a_foreign_array_is_built_again(root: Path, array: Any) -> None:
    expected = cache.load(open_train(root), 8, "bicubic").pixels.copy()
    np.save(cached_files()[0], array)
    assert np.array_equal(cache.load(open_train(root), 8, "bicubic").pixels, expected)


def test_leftovers_of_a_crash_are_harmless(root: Path) -> None:
    code = (
        "import os, sys, dataclasses\n"
        "from pathlib import Path\n"
        "from petlbench.data import cache, lists\n"
        "split = lists.open_split(Path(sys.argv[1]), 't', 'train', classes=10)\n"
        "read = lambda i: os._exit(9) if i == 3 else split.read(i)\n"
        "cache.load(dataclasses.replace(split, read=read), 8, 'bicubic')\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(root)], timeout=60)
    assert result.returncode == 9
    assert cached_files("*.partial") and not cached_files()
    images = cache.load(open_train(root), 8, "bicubic")
    assert images.pixels.any(axis=(1, 2, 3)).all()


def test_two_processes_build_one_file(root: Path) -> None:
    code = (
        "import sys, time, dataclasses\n"
        "from pathlib import Path\n"
        "from petlbench.data import cache, lists\n"
        "split = lists.open_split(Path(sys.argv[1]), 't', 'train', classes=10)\n"
        "def read(i):\n"
        "    print('decoded', i, flush=True)\n"
        "    time.sleep(0.1)\n"
        "    return split.read(i)\n"
        "images = cache.load(dataclasses.replace(split, read=read), 8, 'bicubic')\n"
        "print(images.sha256)\n"
    )
    command = [sys.executable, "-c", code, str(root)]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in both]
    assert "".join(outputs).count("decoded") == 5
    assert outputs[0].split()[-1] == outputs[1].split()[-1]
    assert len(cached_files()) == 1 and not cached_files("*.partial")


def test_a_full_disk_is_met_before_decoding(root: Path) -> None:
    """A sparse file would meet it while a page is written back: SIGBUS, without a word."""
    split = open_train(root)
    sparse: list[bool] = []

    def read(index: int) -> Any:
        for file in cached_files("*.partial"):
            stat = file.stat()
            sparse.append(stat.st_blocks * 512 < stat.st_size)
        return split.read(index)

    cache.load(dataclasses.replace(split, read=read), 128, "bicubic")
    assert not any(sparse)


def test_a_cache_that_cannot_be_written_is_named(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UsageError, match=r"the image cache .*file/cache cannot be used: .*PETLBE"):
        cache.load(open_train(root), 8, "bicubic")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.setenv("PETLBENCH_CACHE", "~/elsewhere")
    assert cache.cache_folder() == Path("/home/someone/elsewhere")
    monkeypatch.delenv("PETLBENCH_CACHE")
    assert cache.cache_folder() == Path("/home/someone/.cache/petlbench")
