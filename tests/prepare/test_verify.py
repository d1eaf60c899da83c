"""Verifying: every changed pixel, label and list is named; sound folders pass."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from petlbench.data import lists
from petlbench.data.split import Split
from petlbench.prepare.verify import Report, verify
from petlbench.task import Suite, Task, load_suite
from prepare.test_originals import TASKS, make, picture, raw

__all__ = ["raw"]  # a fixture

(TASK, OTHER) = TASKS


def open_split(task: Task, split: str, root: Path | None, seed: int) -> Split:
    return lists.open_split(root, task.name, split, task.classes)


SUITE = dataclasses.replace(load_suite("vtab-1k"), tasks=TASKS, open_split=open_split)


def check(root: Path, suite: Suite = SUITE, task: Task = TASK) -> Report:
    return verify(suite, task, root, lambda *_: None)


@pytest.fixture
def root(tmp_path: Path, raw: Path) -> Path:
    make(raw, tmp_path / "data")
    return tmp_path / "data"


def test_what_was_prepared_is_sound(root: Path) -> None:
    report = check(root)
    assert (report.problems, report.notes, report.images) == (
        [],
        [],
        15,
    )
    assert report.verdict == "all as prepared (lossless)"


def test_without_a_manifest_it_is_the_layout(root: Path) -> None:
    (root / "count" / "manifest.json").unlink()
    report = check(root)
    assert (report.problems, report.notes, report.images) == (
        [],
        [],
        15,
    )
    assert "no manifest" in report.verdict


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.integers(0, 4), st.integers(0, 6), st.integers(0, 4), st.integers(0, 2))
def test_any_changed_pixel_is_found(root: Path, index: int, x: int, y: int, channel: int) -> None:
    file = root / "count" / "images" / "test" / f"{index:06d}.png"
    before = file.read_bytes()
    image = picture(10 + index).convert("RGB")
    colour = list(image.getpixel((x, y)))  # type: ignore[arg-type]
    colour[channel] ^= 1
    image.putpixel((x, y), tuple(colour))
    image.save(file)
    try:
        assert check(root).problems == [
            f"test: the pixels of 1 of 5 images changed: images/test/{index:06d}.png"
        ]
    finally:
        file.write_bytes(before)


def test_another_file_of_the_same_pixels_is_no_change(root: Path) -> None:
    file = root / "count" / "images" / "test" / "000000.png"
    picture(10).convert("RGB").save(file, compress_level=0)
    assert check(root).problems == []


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_a_changed_label(root: Path) -> None:
    edit(root / "count" / "val200.txt", "000001.png 1", "000001.png 2")
    assert check(root).problems == [
        "val200: the labels of 1 of 2 images changed: images/val200/000001.png"
    ]
    (root / "count" / "manifest.json").unlink()
    assert check(root).problems == [
        "train800val200: label 1 comes 3 times, and 2 times in train800 and val200; it must be "
        "these two together."
    ]


def test_other_images_in_the_joined_list(root: Path) -> None:
    (root / "count" / "manifest.json").unlink()
    edit(root / "count" / "train800val200.txt", "train800/000000.png", "train800/000004.png")
    assert check(root).problems == [
        "train800val200: its images are not those of train800 and val200."
    ]


def test_the_order_of_the_joined_list_is_free_without_a_manifest(root: Path) -> None:
    file = root / "count" / "train800val200.txt"
    file.write_text("\n".join(reversed(file.read_text().splitlines())))
    pixels, labels = check(root).problems
    assert pixels.startswith("train800val200: the pixels of 10 of 10 images changed: images/val200")
    assert pixels.endswith(", ...") and labels.startswith("train800val200: the labels of ")
    (root / "count" / "manifest.json").unlink()
    assert check(root).problems == []


def test_a_line_that_is_gone(root: Path) -> None:
    file = root / "count" / "test.txt"
    file.write_text("\n".join(file.read_text().splitlines()[1:]))
    assert check(root).problems == ["test: 4 images; 5 were prepared."]
    (root / "count" / "manifest.json").unlink()
    assert check(root).problems == ["test: 4 images; 5 are published."]


@pytest.mark.parametrize("manifest", [True, False])
def test_images_that_cannot_be_read(root: Path, manifest: bool) -> None:
    images = root / "count" / "images" / "test"
    (images / "000002.png").unlink()
    (images / "000003.png").write_bytes(b"not an image")
    if not manifest:
        (root / "count" / "manifest.json").unlink()
    problems = check(root).problems
    assert str(images / "000002.png") in problems[0] and problems[0].endswith("(and 1 more)")
    assert ("the pixels of 2 of 5 images changed" in problems[-1]) == manifest


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("images/test/000000.png 4", "the label must be in 0..3"),
        ("../x.png 1", "the path must stay inside"),
        ("nonsense", "is not 'relative/path label'"),
    ],
)
def test_a_bad_line(root: Path, line: str, says: str) -> None:
    with (root / "count" / "test.txt").open("a") as stream:
        stream.write(f"{line}\n")
    (problem,) = check(root).problems
    assert "test.txt, line 6" in problem and says in problem


def test_a_missing_list(root: Path) -> None:
    (root / "count" / "val200.txt").unlink()
    (problem,) = check(root).problems
    assert "no list file" in problem and "val200.txt" in problem


def test_a_damaged_manifest(root: Path) -> None:
    (root / "count" / "manifest.json").write_text("{")
    problems = check(root).problems
    assert len(problems) == 4 and all("is not a manifest" in problem for problem in problems)


@pytest.mark.parametrize("content", [None, "", "x 1\n"])
def test_digests_that_are_lost(root: Path, content: str | None) -> None:
    """The manifest still tells that something changed."""
    file = root / "count" / "test.digests"
    file.unlink() if content is None else file.write_text(content)
    assert check(root).problems == []
    edit(root / "count" / "test.txt", "000001.png 3", "000001.png 0")
    (problem,) = check(root).problems
    assert problem.startswith("test: images or labels changed; which ones is lost")


def test_training_images_in_the_test_split(root: Path) -> None:
    """Told, and no problem; the file format does not hide them."""
    folder = root / "count" / "images"
    (root / "count" / "manifest.json").unlink()
    picture(9).convert("RGB").save(folder / "test" / "000001.png", format="BMP")
    report = check(root)
    assert report.problems == []
    assert report.notes == [
        "1 images of test are also training images: "
        "images/test/000001.png = images/val200/000001.png"
    ]


def test_other_suites(tmp_path: Path, root: Path) -> None:
    """Counts that differ are a note: published sizes of other suites are not all certain."""
    task = Task("count", "Natural", 4, {"train800": 8, "test": 6})
    report = check(root, task=task)
    assert report.problems == []  # compared with the manifest, where there is one
    (root / "count" / "manifest.json").unlink()
    report = check(root, task=task)
    assert (report.problems, report.notes) == ([], ["test: 5 images; 6 are published."])


def test_a_split_without_files(root: Path) -> None:
    def of_memory(*arguments: Any) -> Split:
        split = open_split(*arguments)
        return dataclasses.replace(split, files=(), read=lambda i: Image.new("RGB", (2, 2)))

    (root / "count" / "manifest.json").unlink()
    report = check(root, dataclasses.replace(SUITE, open_split=of_memory))
    assert "image 0 = image 9, image 1 = image 9" in report.notes[0]
    assert report.notes[0].startswith("5 images of test")
