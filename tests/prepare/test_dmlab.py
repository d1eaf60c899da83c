"""DMLab: frames in shards of TFRecord files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.errors import RunError, UsageError
from prepare import fakes


def test_pixels_and_labels(faked: Any, tmp_path: Path) -> None:
    source, raw = faked("dmlab")
    examples = source.splits(raw)["test"]
    assert len(examples) == 9
    for example in examples:
        index = int(example.key.removeprefix("test_").removesuffix(".jpg"))
        assert example.labels == {"dmlab": index % 6}
        assert example.origin.endswith(f"0000{index % 2}-of-00002, record {index // 2}")
        Image.fromarray(fakes.noise(index, 9, 12, 3)).save(tmp_path / "x.jpg")
        with Image.open(tmp_path / "x.jpg") as image:
            assert (np.asarray(example.read()) == np.asarray(image)).all()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x0a\xff",
        fakes.example(b"x", "test_1.jpg", 6),
        fakes.example(b"x", "test_3.jpg", 1),  # is there already
        fakes.message(1, fakes.message(1, fakes.message(1, b"label"))),
    ],
)
def test_other_records_are_refused(faked: Any, data: bytes) -> None:
    source, raw = faked("dmlab")
    file = raw / "dmlab-test.tfrecord-00001-of-00002"
    file.write_bytes(file.read_bytes() + fakes.record(data))
    with pytest.raises(UsageError, match="00001-of-00002, record 4"):
        source.splits(raw)


def test_an_undecodable_frame_is_named_when_it_is_read(faked: Any) -> None:
    source, raw = faked("dmlab")
    first = raw / "dmlab-test.tfrecord-00000-of-00002"
    first.write_bytes(b"".join(fakes.record(fakes.example(b"no", f"{n}", 0)) for n in range(5)))
    example = next(e for e in source.splits(raw)["test"] if e.key == "3")
    with pytest.raises(RunError, match="00000-of-00002, record 3"):
        example.read()
