"""What is remembered comes back as it was, or not at all."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench import home

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "folder" / "file.json"


@given(value=JSON)
def test_a_value_comes_back(file: Path, value: Any) -> None:
    home.remember(file, value)
    assert home.recall(file) == value
    assert [each.name for each in file.parent.iterdir()] == [file.name]


@given(
    value=JSON.filter(lambda value: value is not None),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.none() | st.integers(0, 7),
)
def test_what_was_cut_or_flipped_is_forgotten(
    file: Path, value: Any, where: float, bit: int | None
) -> None:
    home.remember(file, value)
    content = bytearray(file.read_bytes())
    at = int(where * len(content))
    if bit is None:
        del content[at:]
    else:
        content[at] ^= 1 << bit
    file.write_bytes(content)
    assert home.recall(file) in (None, value)


def test_what_is_not_there_is_forgotten(tmp_path: Path) -> None:
    assert home.recall(tmp_path / "none") is None
    assert home.recall(tmp_path) is None


@pytest.mark.parametrize("change", ["content", "replaced"])
def test_a_stamp_tells_a_change_that_hides(tmp_path: Path, change: str) -> None:
    file = tmp_path / "file"
    file.write_text("a")
    before = file.stat()
    time.sleep(0.02)  # the clock of a file system is coarse
    target = file if change == "content" else tmp_path / "new"
    target.write_text("b")
    target.replace(file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    now = file.stat()
    assert (now.st_size, now.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    assert home.stamp(now) != home.stamp(before)


def test_a_young_file_is_not_settled(tmp_path: Path) -> None:
    stamp = home.stamp(tmp_path.stat())
    written = max(stamp[1:3]) / 1e9
    assert not home.settled(stamp, written + home.SETTLED / 2)
    assert home.settled(stamp, written + 2 * home.SETTLED)
