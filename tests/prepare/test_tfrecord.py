"""TFRecord files: framing, checksums and messages; whatever is wrong is said."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.errors import UsageError
from petlbench.prepare import tfrecord
from prepare.fakes import example, message, record, varint


def bitwise(data: bytes) -> int:
    """CRC-32C from its definition."""
    state = 0xFFFF_FFFF
    for byte in data:
        state ^= byte
        for _ in range(8):
            state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state ^ 0xFFFF_FFFF


def test_published_checksums() -> None:
    """RFC 3720, B.4, and the usual check value."""
    assert tfrecord.crc32c(b"123456789") == 0xE3069283
    assert tfrecord.crc32c(bytes(32)) == 0x8A9136AA
    assert tfrecord.crc32c(b"\xff" * 32) == 0x62A8AB43
    assert tfrecord.crc32c(bytes(range(32))) == 0x46DD794E
    assert tfrecord.crc32c(bytes(range(31, -1, -1))) == 0x113FDB5C


@given(st.binary(max_size=300), st.sampled_from([0, 1, 3, 4, 4093, 4096, 4097, 9000]))
def test_checksum_of_any_bytes(start: bytes, more: int) -> None:
    data = start + bytes(index * 37 % 251 for index in range(more))
    assert tfrecord.crc32c(data) == bitwise(data)


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_records_come_back(tmp_path_factory: pytest.TempPathFactory, contents: list[bytes]) -> None:
    file = tmp_path_factory.mktemp("records") / "x.tfrecord"
    file.write_bytes(b"".join(map(record, contents)))
    found = list(tfrecord.records(file))
    assert [data for _, data in found] == contents
    assert [tfrecord.read(file, place) for place, _ in found] == contents


@given(st.data())
def test_any_change_of_a_file_is_noticed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = record(b"first record") + record(b"second")
    at = data.draw(st.integers(0, len(content) - 1))
    bit = data.draw(st.integers(0, 7))
    broken = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
    file = tmp_path_factory.mktemp("records") / "x.tfrecord"
    file.write_bytes(broken)
    with pytest.raises(UsageError, match=r"x\.tfrecord, record at byte (0|28)"):
        list(tfrecord.records(file))
    file.write_bytes(content[:at])
    if at not in (0, 28):  # between two records a cut cannot be seen; images are counted later
        with pytest.raises(UsageError, match="cut off"):
            list(tfrecord.records(file))


def test_a_huge_length_is_not_believed(tmp_path: Path) -> None:
    length = struct.pack("<Q", 1 << 40)
    file = tmp_path / "x.tfrecord"
    file.write_bytes(length + struct.pack("<I", tfrecord.masked_crc32c(length)) + b"data")
    with pytest.raises(UsageError, match="claims 1099511627776 bytes"):
        list(tfrecord.records(file))


def test_an_example_in_every_spelling() -> None:
    assert tfrecord.parse_example(example(b"\x00JPEG\xff", "naïve.jpg", 300)) == {
        "image": [b"\x00JPEG\xff"],
        "filename": ["naïve.jpg".encode()],
        "label": [300],
    }
    minus_two = varint((1 << 64) - 2)
    unpacked = message(3, varint(1 << 3) + minus_two + varint(1 << 3) + varint(7))
    packed = message(2, message(1, struct.pack("<2f", 0.5, -1.5)))
    single = message(2, varint(1 << 3 | 5) + struct.pack("<f", 0.25))
    features = (("a", unpacked), ("b", packed), ("c", single), ("d", message(1, b"")))
    entries = (message(1, message(1, n.encode()) + message(2, f)) for n, f in features)
    assert tfrecord.parse_example(message(1, b"".join(entries))) == {
        "a": [-2, 7],
        "b": [0.5, -1.5],
        "c": [0.25],
        "d": [],
    }


@given(st.binary(max_size=60), st.integers(0, 60))
def test_other_bytes_are_a_value_error_or_features(noise: bytes, at: int) -> None:
    good = example(b"pixels", "name", 3)
    for data in (noise, good[:at] + noise + good[at:]):
        with contextlib.suppress(ValueError):  # and nothing else is raised
            assert isinstance(tfrecord.parse_example(data), dict)
