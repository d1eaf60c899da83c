"""Copies that somebody else prepared: taken as they are, checked first, labelled by lineage."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petlbench.data import lists
from petlbench.errors import UsageError
from petlbench.prepare import copies
from prepare.test_originals import SIZES, TASKS, nothing_but_locks, picture

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def noah(base: Path, task: str = "count", suffix: str = "jpg") -> Path:
    """A task as NOAH writes it: every split for itself, train800val200 in another order."""
    folder = base / task
    order = [*range(9, -1, -1)]
    members = {"train800": range(8), "val200": range(8, 10), "train800val200": order}
    for split, numbers in (members | {"test": range(10, 15)}).items():
        (folder / "images" / split).mkdir(parents=True)
        lines = []
        for index, number in enumerate(numbers):
            path = f"images/{split}/{index:06d}.{suffix}"
            picture(number).save(folder / path)
            lines.append(f"{path} {number % 4}\n")
        (folder / f"{split}.txt").write_text("".join(lines))
    return folder


def take(source: Path | str, root: Path, **options: Any) -> Any:
    options = {"tasks": TASKS[:1], "progress": lambda *_: None} | options
    return copies.take(options.pop("tasks"), str(source), root, **options)


def manifest(root: Path, task: str = "count") -> Any:
    return json.loads((root / task / "manifest.json").read_text())


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_folder(tmp_path: Path, suffix: str) -> None:
    folder = noah(tmp_path / "copy", suffix=suffix)
    (folder / "stray.txt").write_text("not taken")
    assert take(tmp_path / "copy", tmp_path / "out").made == ["count"]
    for split, size in SIZES.items():
        before = lists.open_split(tmp_path / "copy", "count", split, 4)
        after = lists.open_split(tmp_path / "out", "count", split, 4)
        assert (len(after), after.members) == (size, before.members)
        assert [f.read_bytes() for f in after.files] == [f.read_bytes() for f in before.files]
        assert after.lineage == ("noah-jpeg" if suffix == "jpg" else "unknown")
    assert not (tmp_path / "out" / "count" / "stray.txt").exists()
    assert manifest(tmp_path / "out")["source"] == {"name": "copy"}
    assert (folder / "test.txt").is_file()  # the copy stays


def test_names_alone_do_not_make_a_jpeg(tmp_path: Path) -> None:
    folder = noah(tmp_path / "copy")
    picture(12).save(folder / "images" / "test" / "000002.jpg", format="PNG")
    take(tmp_path / "copy", tmp_path / "out")
    assert manifest(tmp_path / "out")["lineage"] == "unknown"


def zipped(base: Path, file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(base.rglob("*")):
            archive.write(path, path.relative_to(base))
    return file


def tarred(base: Path, file: Path) -> Path:
    with tarfile.open(file, "w:gz") as archive:
        archive.add(base, "vtab-1k")
    return file


@pytest.mark.parametrize(("pack", "name"), [(zipped, "v.zip"), (tarred, "v.tar.gz")])
def test_an_archive(tmp_path: Path, pack: Callable[[Path, Path], Path], name: str) -> None:
    noah(tmp_path / "copy")
    file = pack(tmp_path / "copy", tmp_path / name)
    assert take(file, tmp_path / "out").made == ["count"]
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert manifest(tmp_path / "out")["source"] == {"name": name, "sha256": digest}
    assert manifest(tmp_path / "out")["lineage"] == "noah-jpeg"
    names = {path.name for path in (tmp_path / "out").iterdir() if path.suffix != ".lock"}
    assert names == {"count"}  # and no extracted rest
    shutil.rmtree(tmp_path / "copy")
    assert lists.open_split(tmp_path / "out", "count", "test", 4).read(0).size == (7, 5)


def test_it_is_not_taken_twice(tmp_path: Path) -> None:
    noah(tmp_path / "copy")
    take(tmp_path / "copy", tmp_path / "out")
    assert take(tmp_path / "copy", tmp_path / "out").kept == ["count"]
    file = zipped(tmp_path / "copy", tmp_path / "v.zip")
    assert "was made from copy" in take(file, tmp_path / "out").failed["count"]
    assert take(file, tmp_path / "out", force=True).made == ["count"]


def test_one_bad_task_does_not_keep_the_others(tmp_path: Path) -> None:
    noah(tmp_path / "copy")
    outcome = take(tmp_path / "copy", tmp_path / "out", tasks=TASKS)
    assert outcome.made == ["count"]
    assert "has no folder shape with test.txt in it" in outcome.failed["shape"]


def bad(tmp_path: Path, damage: Callable[[Path], object], *parts: str) -> None:
    damage(noah(tmp_path / "copy"))
    outcome = take(tmp_path / "copy", tmp_path / "out")
    assert outcome.made == [] and nothing_but_locks(tmp_path / "out")
    for part in parts:
        assert part in outcome.failed["count"]


def test_a_missing_image(tmp_path: Path) -> None:
    bad(
        tmp_path,
        lambda folder: (folder / "images" / "test" / "000003.jpg").unlink(),
        "test: 1 images are missing",
        "images/test/000003.jpg",
    )


def test_an_image_that_does_not_decode(tmp_path: Path) -> None:
    bad(
        tmp_path,
        lambda folder: (folder / "images" / "test" / "000003.jpg").write_bytes(b"\xff\xd8\xff"),
        "test: cannot decode image",
        "000003.jpg",
    )


@pytest.mark.parametrize("split", SIZES)
def test_a_wrong_number_of_members(tmp_path: Path, split: str) -> None:
    def damage(folder: Path) -> None:
        lines = (folder / f"{split}.txt").read_text().splitlines()
        (folder / f"{split}.txt").write_text("\n".join(lines[1:]))

    bad(tmp_path, damage, f"{split}: {SIZES[split] - 1} images; {SIZES[split]} are published")


def test_a_label_out_of_range(tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        text = (folder / "test.txt").read_text()
        (folder / "test.txt").write_text(text.replace("000001.jpg 3", "000001.jpg 4"))

    bad(tmp_path, damage, "test.txt, line 2", "the label must be in 0..3")


def test_lists_that_contradict_each_other(tmp_path: Path) -> None:
    def damage(folder: Path) -> None:
        text = (folder / "val200.txt").read_text()
        (folder / "val200.txt").write_text(text.replace("000001.jpg 1", "000001.jpg 2"))

    bad(tmp_path, damage, "train800val200: label 1 comes 3 times, and 2 times")


def test_a_missing_list(tmp_path: Path) -> None:
    bad(tmp_path, lambda folder: (folder / "val200.txt").unlink(), "no list file", "val200.txt")


def test_the_same_task_twice(tmp_path: Path) -> None:
    noah(tmp_path / "copy" / "a")
    noah(tmp_path / "copy" / "b")
    outcome = take(tmp_path / "copy", tmp_path / "out")
    assert "more than once" in outcome.failed["count"]


def test_archives_are_named_in_errors(tmp_path: Path) -> None:
    folder = noah(tmp_path / "copy")
    (folder / "val200.txt").unlink()
    file = zipped(tmp_path / "copy", tmp_path / "v.zip")
    failed = take(file, tmp_path / "out").failed["count"]
    assert f"no list file {file}/count/val200.txt" in failed
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UsageError, match=r"v.zip is corrupt"):
        take(file, tmp_path / "out")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("../count/test.txt", "")
    with pytest.raises(UsageError, match=r"v.zip is refused: .* not a safe path"):
        take(file, tmp_path / "out")
    assert nothing_but_locks(tmp_path / "out")


@pytest.mark.parametrize("name", ["nowhere", "nowhere.zip"])
def test_no_such_copy(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"--from .*{name}: there is no such folder or archive"):
        take(tmp_path / name, tmp_path / "out")


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "v.rar").write_bytes(b"")
    with pytest.raises(UsageError, match=r"v.rar is no archive"):
        take(tmp_path / "v.rar", tmp_path / "out")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the hub gives: a folder of links, as its cache is."""
    import huggingface_hub

    def download(name: str, **options: Any) -> str:
        assert name == "someone/VTAB-1k"
        assert options == {"repo_type": "dataset", "revision": COMMIT}
        return str(tmp_path / "snapshot")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    (tmp_path / "snapshot").mkdir()
    return tmp_path / "snapshot"


@pytest.mark.skipif(sys.platform == "win32", reason="links")
def test_the_hub(tmp_path: Path, hub: Path) -> None:
    for file in sorted(noah(tmp_path / "blobs").rglob("*")):
        if file.is_file():
            link = hub / file.relative_to(tmp_path / "blobs")
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
    name = f"hf:someone/VTAB-1k@{COMMIT}"
    assert take(name, tmp_path / "out").made == ["count"]
    assert manifest(tmp_path / "out")["source"] == {"name": name}
    assert manifest(tmp_path / "out")["lineage"] == "noah-jpeg"
    copied = tmp_path / "out" / "count" / "images" / "test" / "000000.jpg"
    assert copied.is_file() and not copied.is_symlink()


def test_an_archive_on_the_hub(tmp_path: Path, hub: Path) -> None:
    noah(tmp_path / "copy")
    file = zipped(tmp_path / "copy", hub / "v.zip")
    name = f"hf:someone/VTAB-1k@{COMMIT}"
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert take(name, tmp_path / "out").made == ["count"]
    assert manifest(tmp_path / "out")["source"] == {"name": name, "sha256": digest}
    zipped(tmp_path / "copy", hub / "w.zip")
    with pytest.raises(UsageError, match=r"several archives: .* v.zip, w.zip"):
        take(name, tmp_path / "other")


@pytest.mark.parametrize(
    "name", ["hf:someone/VTAB-1k", "hf:someone/VTAB-1k@main", f"hf:VTAB-1k@{COMMIT}", "hf:"]
)
def test_a_revision_must_be_a_commit(tmp_path: Path, hub: Path, name: str) -> None:
    with pytest.raises(UsageError, match=r"hf:OWNER/NAME@COMMIT with all 40 digits"):
        take(name, tmp_path / "out")


def test_no_network(tmp_path: Path) -> None:
    """HF_HUB_OFFLINE is set in all tests."""
    with pytest.raises(UsageError, match=rf"hf:someone/none@{COMMIT} cannot be had from the hub"):
        take(f"hf:someone/none@{COMMIT}", tmp_path / "out")
