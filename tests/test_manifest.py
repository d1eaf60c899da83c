"""manifest.json: written, read back, refused; and what a split says about where it comes from."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.data import ahead, digest, lists, manifest
from petlbench.errors import UsageError
from petlbench.task import load_suite

SPLIT = {"count": 3, "pixels": "ab", "keys": "cd"}
MADE = manifest.Manifest("cifar", "lossless", {"name": "cifar"}, {"test": SPLIT})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(MADE.text())
    expected = hashlib.sha256(MADE.text().encode()).hexdigest()
    assert manifest.read(tmp_path) == (MADE, expected)
    assert manifest.read(tmp_path / "elsewhere") is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"splits": 3},
        {"splits": {"test": {"count": 3}}},
        {"splits": {"test": {"count": "many", "pixels": ""}}},
        {"source": {}},
        {"source": "hub"},
    ],
)
def test_a_foreign_manifest_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    file = tmp_path / "manifest.json"
    file.write_text(json.dumps(json.loads(MADE.text()) | change))
    with pytest.raises(UsageError, match=r"manifest.json is not a manifest of petlbench"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"{", b"\xff", b"null"])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(UsageError, match=r"manifest.json is not a manifest of petlbench"):
        manifest.read(tmp_path)


def test_the_digest_is_of_pixels_and_shape() -> None:
    grey = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert digest.of_pixels(grey) == digest.of_pixels(grey.convert("RGB"))
    by_hand = b"3 2\n" + bytes(value for value in range(6) for _ in range(3))
    assert digest.of_pixels(grey) == hashlib.sha256(by_hand).hexdigest()
    assert digest.of_pixels(grey) != digest.of_pixels(turned(grey))
    assert digest.text(["ab", "cd"], [3, 0]) == "ab 3\ncd 0\n"


def turned(image: Image.Image) -> Image.Image:
    """The same bytes in another shape."""
    return Image.frombytes("L", image.size[::-1], image.tobytes())


def test_results_come_in_order() -> None:
    assert list(ahead.in_order(lambda value: value * value, range(200))) == [
        value * value for value in range(200)
    ]
    with pytest.raises(ZeroDivisionError):
        list(ahead.in_order(lambda value: 1 // (value - 7), range(200)))


def as_noah(folder: Path) -> None:
    for image in (folder / "images").iterdir():
        image.unlink()
    for split in ("train800", "val200", "train800val200", "test"):
        lines = (folder / f"{split}.txt").read_text().splitlines()
        labels = [line.rpartition(" ")[2] for line in lines]
        text = "".join(f"images/{split}/{i:06d}.jpg {n}\n" for i, n in enumerate(labels))
        (folder / f"{split}.txt").write_text(text)


def test_a_split_says_its_lineage(vtab_root: Path) -> None:
    suite = load_suite("vtab-1k")
    (task,) = suite.select(["cifar"])
    folder = vtab_root / "cifar"

    def opened() -> Any:
        return suite.open_split(task, "test", vtab_root, 0)

    before = opened()
    assert (before.lineage, before.manifest) == ("unknown", "")
    assert before.files[0] == folder / "images" / "00 of 20.png" and len(before.files) == 40
    (folder / "manifest.json").write_text(MADE.text())
    after = opened()
    assert after.lineage == "lossless" and after.members == before.members
    assert after.manifest == hashlib.sha256(MADE.text().encode()).hexdigest()
    (folder / "manifest.json").write_text("{}")
    with pytest.raises(UsageError, match=r"not a manifest"):
        opened()
    (folder / "manifest.json").unlink()
    as_noah(folder)
    assert opened().lineage == "noah-jpeg"
    with (folder / "test.txt").open("a") as stream:
        stream.write("images/test/40.jpg 3\n")
    assert opened().lineage == "unknown"


def test_another_layout_has_no_lineage(tmp_path: Path, vtab_root: Path) -> None:
    shutil.copy(vtab_root / "cifar" / "test.txt", tmp_path / "mine.txt")
    assert lists.read(tmp_path / "mine.txt", vtab_root / "cifar", "test", 10).lineage == ""
