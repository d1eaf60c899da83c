"""TFRecord files and the tf.train.Example messages in them, without TensorFlow.

A record is a little-endian uint64 length, the masked CRC-32C of those 8 bytes, the data, and the
masked CRC-32C of the data.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from petlbench.errors import UsageError

Value = bytes | int | float
Table = np.ndarray[Any, np.dtype[np.uint32]]
LIMIT = 1 << 30
"""Longest record that is believed: a corrupt length must not allocate all memory."""


@dataclass(frozen=True)
class Record:
    """Where the data of a record lie in its file, in bytes."""

    offset: int
    length: int


def records(file: Path) -> Iterator[tuple[Record, bytes]]:
    """Every record and its data. Raises UsageError naming the byte at which the file is corrupt."""
    with file.open("rb") as stream:
        offset = 0
        while head := stream.read(12):
            where = f"{file}, record at byte {offset}"
            if len(head) < 12 or masked_crc32c(head[:8]) != struct.unpack("<I", head[8:])[0]:
                raise UsageError(f"{where}: its length is cut off or corrupt; get the file again.")
            (length,) = struct.unpack("<Q", head[:8])
            if length > LIMIT:
                raise UsageError(f"{where} claims {length} bytes; get the file again.")
            data, tail = stream.read(length), stream.read(4)
            if len(data) < length or len(tail) < 4:
                raise UsageError(f"{where} is cut off; get the file again.")
            if masked_crc32c(data) != struct.unpack("<I", tail)[0]:
                raise UsageError(f"{where}: its checksum is wrong; get the file again.")
            yield Record(offset + 12, length), data
            offset += 16 + length


def read(file: Path, record: Record) -> bytes:
    with file.open("rb") as stream:
        stream.seek(record.offset)
        return stream.read(record.length)


def parse_example(data: bytes) -> dict[str, list[Value]]:
    """tf.train.Example -> name of a feature -> its bytes, floats or integers.

    Messages: Example {1: Features}, Features {1: map entry {1: name, 2: Feature}}, Feature
    {1: bytes list | 2: float list | 3: int64 list}, each list {1: values}. Raises ValueError.
    """
    features: dict[str, list[Value]] = {}
    for entries in _messages(data, 1):
        for entry in _messages(entries, 1):
            (name,) = _messages(entry, 1)
            features[name.decode()] = [
                value
                for feature in _messages(entry, 2)
                for kind, values in _fields(feature)
                for value in _values(kind, values)
            ]
    return features


def _messages(data: bytes, field: int) -> list[bytes]:
    """The length-delimited contents of one field."""
    found = [value for number, value in _fields(data) if number == field]
    if not all(isinstance(value, bytes) for value in found):
        raise ValueError(f"field {field} is a number where a message is expected")
    return [value for value in found if isinstance(value, bytes)]


def _values(kind: int, message: bytes | int) -> Iterator[Value]:
    """The values of a list; numbers may be packed or not."""
    if not isinstance(message, bytes) or kind not in (1, 2, 3):
        raise ValueError(f"a feature has no list of kind {kind}")
    for number, value in _fields(message):
        if number != 1:
            raise ValueError(f"a list has no field {number}")
        if kind == 1:
            yield value
        elif kind == 2:
            packed = value if isinstance(value, bytes) else struct.pack("<I", value)
            yield from struct.unpack(f"<{len(packed) // 4}f", packed)
        else:
            yield from map(_signed, _varints(value) if isinstance(value, bytes) else (value,))


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Numbers of fields and their contents, of the wire format of protocol buffers."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, wire = tag >> 3, tag & 7
        value: bytes | int
        if wire == 0:
            value, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}.get(wire)
            if wire == 2:
                length, at = _varint(data, at)
            if length is None or at + length > len(data):
                raise ValueError(f"wire type {wire} at byte {at} is unknown or cut off")
            value, at = data[at : at + length], at + length
            if wire != 2:
                value = int.from_bytes(value, "little")
        yield number, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of 7 bits a byte, lowest first, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            break
        byte, at = data[at], at + 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise ValueError(f"the number before byte {at} is cut off or too long")


def _varints(data: bytes) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


BLOCK = 4096


def masked_crc32c(data: bytes) -> int:
    """CRC-32C, rotated and shifted as TFRecord files have it."""
    crc = crc32c(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFF_FFFF


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), a block at a time.

    A CRC is linear over XOR: every byte contributes by its value and its distance to the end, and
    the state so far acts like four bytes that are XORed onto the next ones. Zeros before the
    message change nothing while the state is zero, so the first block is filled up with them.
    """
    table = _contributions()
    if len(data) < 4:  # no four bytes to lay the initial state onto
        state = 0xFFFF_FFFF
        for byte in data:
            state = state >> 8 ^ int(table[-1, (state ^ byte) & 255])
        return state ^ 0xFFFF_FFFF
    blocks = -(-len(data) // BLOCK)
    padded = np.zeros(blocks * BLOCK, dtype=np.uint8)
    message = padded[-len(data) :]
    message[:] = np.frombuffer(data, dtype=np.uint8)
    message[:4] ^= 255  # the initial state
    state, places = 0, np.arange(BLOCK)
    for block in padded.reshape(blocks, BLOCK):
        block[:4] ^= np.frombuffer(struct.pack("<I", state), dtype=np.uint8)
        state = int(np.bitwise_xor.reduce(table[places, block]))
    return state ^ 0xFFFF_FFFF


@functools.cache
def _contributions() -> Table:
    """(BLOCK, 256): what a byte value at a place of a block adds to the state after the block."""
    last: Table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        last = last >> np.uint32(1) ^ (last & np.uint32(1)) * np.uint32(0x82F63B78)
    table: Table = np.empty((BLOCK, 256), dtype=np.uint32)
    table[-1] = last
    for place in range(BLOCK - 2, -1, -1):
        after = table[place + 1]
        table[place] = after >> np.uint32(8) ^ last[after & np.uint32(255)]
    return table
