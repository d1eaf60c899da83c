"""What holds for every source."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest

from petlbench import prepare
from petlbench.errors import UsageError
from petlbench.task import load_suite
from prepare import fakes

TASKS = {task.name: task for task in load_suite("vtab-1k").tasks}


def test_every_task_of_vtab_is_made_by_one_source() -> None:
    made = [task for source in prepare.sources().values() for task in source.TASKS]
    assert sorted(made) == sorted(TASKS)
    assert prepare.source_of("clevr_dist") is prepare.sources()["clevr"]
    with pytest.raises(UsageError, match="Did you mean clevr_dist"):
        prepare.source_of("clevr_dst")


@pytest.mark.parametrize("name", list(prepare.sources()))
def test_declarations(name: str) -> None:
    source = prepare.sources()[name]
    assert source.TITLE and source.LICENCE and source.NEEDS
    assert source.HOMEPAGE.startswith("http")
    for download in source.DOWNLOAD:
        assert download.url.startswith("http") and download.file == Path(download.file).name
        assert download.checksum is None or re.fullmatch("sha256:[0-9a-f]{64}", download.checksum)


def test_published_numbers_agree_with_the_suite() -> None:
    for name, source in prepare.sources().items():
        if name == "caltech101":
            continue
        counts, slices = source.COUNTS, source.SLICES  # type: ignore[attr-defined]
        for task in source.TASKS:
            for split, (parent, start, stop) in slices.items():
                size = len(range(counts[parent])[start:stop])
                assert size == TASKS[task].sizes[split], (task, split)


@pytest.mark.parametrize("name", list(fakes.FAKES))
def test_examples_of_a_small_copy(name: str, faked: Any) -> None:
    source, raw = faked(name)
    splits = source.splits(raw)
    assert set(splits) == {"train800", "val200", "test"}
    for split, examples in splits.items():
        parent, start, stop = source.SLICES[split]
        assert len(examples) == len(range(source.COUNTS[parent])[start:stop])
        digests = [
            int(hashlib.md5(f"{parent}{example.key}".encode()).hexdigest(), 16)
            for example in examples
        ]
        assert digests == sorted(digests) and len(set(digests)) == len(digests)
        for example in examples:
            assert set(example.labels) == set(source.TASKS)
            for task, label in example.labels.items():
                assert type(label) is int and 0 <= label < TASKS[task].classes
            assert str(raw) in example.origin
            image = example.read()
            assert image.mode in ("RGB", "L") and image.tobytes() == example.read().tobytes()
    taken = {(source.SLICES[s][0], e.key) for s, examples in splits.items() for e in examples}
    assert len(taken) == sum(map(len, splits.values()))  # no image in two splits


@pytest.mark.parametrize("name", list(fakes.FAKES))
def test_any_other_number_of_images_is_refused(
    name: str, faked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, raw = faked(name)
    for split, count in source.COUNTS.items():
        with monkeypatch.context() as patch:
            patch.setattr(source, "COUNTS", {**source.COUNTS, split: count + 1})
            with pytest.raises(UsageError, match=f"{split!r} has {count} images; exactly"):
                source.splits(raw)


@pytest.mark.parametrize("name", list(fakes.FAKES))
def test_what_is_missing_is_named(name: str, faked: Any) -> None:
    source, raw = faked(name)
    with pytest.raises(UsageError) as nothing:
        source.splits(raw.parent / "empty")
    assert source.HOMEPAGE in str(nothing.value) and source.NEEDS[0] in str(nothing.value)
    examples = source.splits(raw)
    for file in sorted(path for path in raw.rglob("*") if path.is_file()):
        content = file.read_bytes()
        file.unlink()
        try:
            # an image that is no member is not missed, but then it is counted where it lies
            assert source.splits(raw).keys() == examples.keys()
            used = {e.origin for those in examples.values() for e in those}
            assert str(file) not in used
        except UsageError as error:
            assert str(file) in str(error) or "images; exactly" in str(error), error
        finally:
            file.write_bytes(content)


@pytest.mark.parametrize("name", list(fakes.FAKES))
def test_a_cut_off_file_is_refused(name: str, faked: Any) -> None:
    """Files that hold many images or labels: half of one never passes."""
    source, raw = faked(name)
    for file in sorted(raw.rglob("*")):
        if file.suffix in (".jpg", ".jpeg", ".png", ".txt", ".csv") or not file.is_file():
            continue
        content = file.read_bytes()
        file.write_bytes(content[: len(content) // 2 + 1])
        with pytest.raises(UsageError, match=re.escape(file.name)):
            source.splits(raw)
        file.write_bytes(content)


def test_caltech101_says_why_and_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"seed 1234.*prepared copy"):
        prepare.source_of("caltech101").splits(Path("RAW/caltech101"))
