"""Folders made from original data sets: exact, whole or not at all, and told precisely."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.data import digest, lists
from petlbench.errors import RunError, UsageError
from petlbench.prepare import originals
from petlbench.prepare.examples import Download, Example
from petlbench.task import Task

SIZES = {"train800": 8, "val200": 2, "train800val200": 10, "test": 5}
TASKS = tuple(
    Task(name, "Natural", 4, SIZES, class_names=names)
    for name, names in (("count", ()), ("shape", ("disc", "ring", "big square", "star")))
)


@dataclasses.dataclass
class Fake:
    """A source of noise, which needs one file and makes two tasks."""

    TASKS: tuple[str, ...] = ("count", "shape")
    TITLE: str = "Noise"
    LICENCE: str = "CC0"
    HOMEPAGE: str = "https://example.org/noise"
    DOWNLOAD: tuple[Download, ...] = ()
    NEEDS: tuple[str, ...] = ("noise.bin, of noise.zip",)
    CLASSES: tuple[str, ...] = ("one", "two", "three_or_four", "more")
    read: Callable[[Path, int], Image.Image] | None = None
    calls: int = 0

    def splits(self, raw: Path) -> dict[str, list[Example]]:
        self.calls += 1
        if not (raw / "noise.bin").is_file():
            raise UsageError(f"no {raw / 'noise.bin'}")
        return {
            split: [self.example(raw, begin + i) for i in range(SIZES[split])]
            for split, begin in (("train800", 0), ("val200", 8), ("test", 10))
        }

    def example(self, raw: Path, index: int) -> Example:
        return Example(
            key=f"noise_{index}",
            labels={"count": index % 4, "shape": (index + 1) % 4},
            read=lambda: (self.read or (lambda _, i: picture(i)))(raw, index),
            origin=f"{raw / 'noise.bin'}, row {index}",
        )


def picture(index: int) -> Image.Image:
    """Grey if odd; with a colour profile, which a reader would apply."""
    pixels = np.random.default_rng(index).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    image = Image.fromarray(pixels[..., 0] if index % 2 else pixels)
    image.info["icc_profile"] = b"profile"
    return image


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    (tmp_path / "raw" / "noise").mkdir(parents=True)
    (tmp_path / "raw" / "noise" / "noise.bin").write_bytes(b"")
    return tmp_path / "raw"


def make(raw: Path, root: Path, source: Any = None, **options: Any) -> originals.Outcome:
    tasks = options.pop("tasks", TASKS)
    options.setdefault("progress", lambda *_: None)
    return originals.prepare(tasks, {"noise": source or Fake()}, raw, root, **options)


def test_pixels_labels_and_lists(tmp_path: Path, raw: Path) -> None:
    outcome = make(raw, tmp_path / "out")
    assert (outcome.made, outcome.kept, outcome.failed) == (["count", "shape"], [], {})
    assert sorted(p.name for p in (tmp_path / "out").iterdir() if p.name[0] != ".") == [
        "count",
        "shape",
    ]
    for split, begin in (("train800", 0), ("val200", 8), ("test", 10)):
        opened = lists.open_split(tmp_path / "out", "count", split, 4, SIZES[split])
        assert opened.lineage == "lossless" and len(opened.manifest) == 64
        for i in range(len(opened)):
            expected = picture(begin + i).convert("RGB")
            assert np.array_equal(np.asarray(opened.read(i)), np.asarray(expected))
            assert opened.labels[i] == (begin + i) % 4
            assert opened.files[i].name == f"{i:06d}.png"
            with Image.open(opened.files[i]) as stored:
                assert "icc_profile" not in stored.info
    folder = tmp_path / "out" / "count"
    both = [(folder / f"{part}.txt").read_text() for part in ("train800", "val200")]
    assert (folder / "train800val200.txt").read_text() == "".join(both)
    assert len(list((folder / "images").rglob("*.png"))) == 15  # no picture is stored twice


def test_names_of_classes(tmp_path: Path, raw: Path) -> None:
    """The suite's, or else the source's."""
    make(raw, tmp_path)
    assert (tmp_path / "shape" / "classes.txt").read_text() == "disc\nring\nbig square\nstar\n"
    assert (tmp_path / "count" / "classes.txt").read_text() == "one\ntwo\nthree or four\nmore\n"
    make(raw, tmp_path, Fake(CLASSES=("too", "few")), force=True)
    assert not (tmp_path / "count" / "classes.txt").exists()


def test_the_manifest(tmp_path: Path, raw: Path) -> None:
    make(raw, tmp_path)
    written = json.loads((tmp_path / "count" / "manifest.json").read_text())
    assert written["task"] == "count" and written["lineage"] == "lossless"
    assert written["source"] == {
        "name": "noise",
        "title": "Noise",
        "url": "https://example.org/noise",
        "licence": "CC0",
    }
    whole = written["splits"]["train800val200"]
    keys = "\n".join(f"noise_{i}" for i in range(10))
    assert whole["keys"] == hashlib.sha256(keys.encode()).hexdigest()
    lines = "".join(f"{digest.of_pixels(picture(i))} {i % 4}\n" for i in range(10))
    assert whole["pixels"] == hashlib.sha256(lines.encode()).hexdigest()
    assert {name: split["count"] for name, split in written["splits"].items()} == SIZES


def test_it_is_the_same_wherever_it_is_made(tmp_path: Path, raw: Path) -> None:
    for name in ("a", "b"):
        make(raw, tmp_path / name)
    files = [
        {p.relative_to(tmp_path / name): p.read_bytes() for p in (tmp_path / name).rglob("*.*g*")}
        for name in ("a", "b")
    ]
    assert files[0] == files[1] and len(files[0]) > 30
    a, b = ((tmp_path / name / "count" / "manifest.json").read_bytes() for name in ("a", "b"))
    assert a == b


def test_what_is_finished_is_not_made_again(tmp_path: Path, raw: Path) -> None:
    source = Fake()
    make(raw, tmp_path, source, tasks=TASKS[:1])
    before = (tmp_path / "count" / "manifest.json").stat().st_mtime_ns
    outcome = make(raw, tmp_path, source)
    assert (outcome.made, outcome.kept, outcome.failed) == (["shape"], ["count"], {})
    assert (tmp_path / "count" / "manifest.json").stat().st_mtime_ns == before
    make(raw, tmp_path, source)
    assert source.calls == 2  # all was there: the originals are not even looked at
    outcome = make(raw, tmp_path, source, force=True)
    assert outcome.made == ["count", "shape"] and source.calls == 3
    assert (tmp_path / "count" / "manifest.json").stat().st_mtime_ns != before


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "was not made by petlbench"),
        ('{"schema": 1}', "is not a manifest"),
        (
            '{"schema": 1, "task": "count", "lineage": "noah-jpeg", "splits": {}, '
            '"source": {"name": "vtab.zip"}}',
            "was made from vtab.zip",
        ),
    ],
)
def test_what_somebody_else_put_there_stays(
    tmp_path: Path, raw: Path, content: str | None, says: str
) -> None:
    (tmp_path / "count").mkdir()
    (tmp_path / "count" / "mine.txt").write_text("mine")
    if content:
        (tmp_path / "count" / "manifest.json").write_text(content)
    outcome = make(raw, tmp_path)
    assert outcome.made == ["shape"] and says in outcome.failed["count"]
    assert "--force" in outcome.failed["count"]
    assert (tmp_path / "count" / "mine.txt").read_text() == "mine"
    assert make(raw, tmp_path, force=True).made == ["count", "shape"]
    assert not (tmp_path / "count" / "mine.txt").exists()


def test_what_is_missing_is_told_with_where_to_get_it(tmp_path: Path, raw: Path) -> None:
    (raw / "noise" / "noise.bin").unlink()
    downloads = (
        Download("https://example.org/noise.zip", "noise.zip", "sha256:" + "0" * 64, 12345),
        Download("https://example.org/more.zip", "more.zip", None, None),
    )
    outcome = make(raw, tmp_path / "out", Fake(DOWNLOAD=downloads))
    assert outcome.made == [] and set(outcome.failed) == {"count", "shape"}
    for part in (
        f"no {raw / 'noise' / 'noise.bin'}",
        f"{raw / 'noise'} must hold:\n  noise.bin, of noise.zip",
        "licence: CC0",
        "https://example.org/noise.zip, 12,345 bytes (--download gets it)",
    ):
        assert part in outcome.failed["count"]
    assert outcome.failed["count"].endswith("from https://example.org/more.zip")


def test_a_task_that_nothing_makes(tmp_path: Path, raw: Path) -> None:
    other = dataclasses.replace(TASKS[0], name="other")
    outcome = make(raw, tmp_path, tasks=(TASKS[0], other))
    assert outcome.made == ["count"] and "cannot be made" in outcome.failed["other"]


def wrong_count(split: str) -> Fake:
    class Short(Fake):
        def splits(self, raw: Path) -> dict[str, list[Example]]:
            whole = super().splits(raw)
            return whole | {split: whole[split][1:]}

    return Short()


@pytest.mark.parametrize("split", ["train800", "val200", "test"])
def test_a_wrong_number_of_members(tmp_path: Path, raw: Path, split: str) -> None:
    outcome = make(raw, tmp_path / "out", wrong_count(split))
    expected = f"{split} has {SIZES[split] - 1} images; {SIZES[split]} are expected."
    assert outcome.failed == {"count": expected, "shape": expected}
    assert nothing_but_locks(tmp_path / "out")


def nothing_but_locks(root: Path) -> bool:
    return all(path.suffix == ".lock" for path in root.iterdir())


def test_a_label_out_of_range(tmp_path: Path, raw: Path) -> None:
    few = dataclasses.replace(TASKS[0], classes=3)
    outcome = make(raw, tmp_path / "out", tasks=(few, TASKS[1]))
    assert outcome.made == ["shape"]
    assert outcome.failed["count"].endswith("noise.bin, row 3: label 3 is not in 0..2.")


@pytest.mark.parametrize("error", [RunError("cannot decode X"), OSError("broken"), ValueError("x")])
def test_an_image_that_cannot_be_decoded(tmp_path: Path, raw: Path, error: Exception) -> None:
    def read(raw: Path, index: int) -> Image.Image:
        if index == 11:
            raise error
        return picture(index)

    outcome = make(raw, tmp_path / "out", Fake(read=read))
    assert outcome.made == [] and str(error) in outcome.failed["count"]
    assert nothing_but_locks(tmp_path / "out")


def test_the_old_folder_stays_if_the_new_one_fails(tmp_path: Path, raw: Path) -> None:
    make(raw, tmp_path)
    before = (tmp_path / "count" / "manifest.json").read_bytes()
    outcome = make(raw, tmp_path, wrong_count("test"), force=True)
    assert set(outcome.failed) == {"count", "shape"}
    assert (tmp_path / "count" / "manifest.json").read_bytes() == before
    assert len(list((tmp_path / "count" / "images").rglob("*.png"))) == 15


def test_a_crash_between_the_two_renames_is_mended(tmp_path: Path, raw: Path) -> None:
    make(raw, tmp_path)
    os.replace(tmp_path / "count", tmp_path / ".count.old")
    outcome = make(raw, tmp_path)
    assert outcome.kept == ["count", "shape"] and (tmp_path / "count" / "test.txt").is_file()
    assert not (tmp_path / ".count.old").exists()


def test_a_place_that_cannot_be_written(tmp_path: Path, raw: Path) -> None:
    (tmp_path / "out").write_text("a file")
    outcome = make(raw, tmp_path / "out")
    assert set(outcome.failed) == {"count", "shape"}
    assert outcome.failed["count"].startswith("cannot write: ")


def test_ctrl_c_leaves_nothing_and_it_goes_on(tmp_path: Path, raw: Path) -> None:
    code = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "import prepare.test_originals as t\n"
        "def read(raw, index):\n"
        "    if index == 12 and '.shape.partial' in str(list(t.Path('out').glob('.*.partial'))):\n"
        "        print('reading', flush=True)\n"
        "        time.sleep(1)\n"
        "    return t.picture(index)\n"
        "t.make(Path('raw'), Path('out'), t.Fake(read=read))\n"
    )
    folder = str(Path(__file__).parents[1])
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([folder, os.environ.get("PYTHONPATH", "")])
    }
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "reading\n"
    process.send_signal(signal.SIGINT)
    _, message = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in message
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir() if path.suffix != ".lock"} == {"count"}
    outcome = make(raw, out)
    assert (outcome.made, outcome.kept) == (["shape"], ["count"])


def test_progress_is_told(tmp_path: Path, raw: Path) -> None:
    told: list[tuple[str, int, int]] = []
    make(raw, tmp_path, progress=lambda *step: told.append(step))
    assert ("reading noise", 1, 1) in told
    assert [step for step in told if step[0] == "count test"] == [
        ("count test", done, 5) for done in range(1, 6)
    ]
