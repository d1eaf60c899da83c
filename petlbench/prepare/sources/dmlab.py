"""DMLab: frames of DeepMind Lab in TFRecord files; {close, far, very far} x {good, bad} object.

A record is a tf.train.Example with `image` (JPEG), `filename` and `label` (0..5).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from PIL import Image

from petlbench.errors import RunError, UsageError
from petlbench.prepare import tfrecord
from petlbench.prepare.examples import Download, Example, present
from petlbench.prepare.order import select, three_slices

TASKS = ("dmlab",)
TITLE = "DMLab (VTAB)"
LICENCE = "not stated"
HOMEPAGE = "https://github.com/google-research/task_adaptation"
DOWNLOAD = (
    Download(
        "https://storage.googleapis.com/dmlab-vtab/dmlab.tar.gz",
        "dmlab.tar.gz",
        "sha256:638b18fa69a5d61bbc310cd0b87ac603a39f41de0fdb07b6e77de274a24480a4",
        3_017_022_789,
    ),
)
NEEDS = (
    "dmlab-train.tfrecord*, dmlab-validation.tfrecord* and dmlab-test.tfrecord*, of dmlab.tar.gz",
)

COUNTS = {"train": 65_550, "validation": 22_628, "test": 22_735}
SLICES = three_slices()


Kind = TypeVar("Kind", bytes, int)
Features = dict[str, list[tfrecord.Value]]


@dataclass(frozen=True)
class Frame:
    """Where a record is, and its label."""

    file: Path
    number: int
    record: tfrecord.Record
    label: int


def splits(raw: Path) -> dict[str, list[Example]]:
    """Keys are the file names inside the records; every record is read and its CRC checked."""
    frames = {split: _frames(raw, split) for split in COUNTS}

    def example(split: str, key: str) -> Example:
        frame = frames[split][key]
        where = f"{frame.file}, record {frame.number}"
        return Example(key, {"dmlab": frame.label}, lambda: _image(frame, where), where)

    return select(raw, frames, COUNTS, SLICES, example)


def _frames(raw: Path, split: str) -> dict[str, Frame]:
    files = sorted(raw.glob(f"dmlab-{split}.tfrecord*"))
    if not files:
        present(raw / f"dmlab-{split}.tfrecord", NEEDS, HOMEPAGE)
    frames: dict[str, Frame] = {}
    for file in files:
        for number, (record, data) in enumerate(tfrecord.records(file)):
            where = f"{file}, record {number}"
            try:
                features = tfrecord.parse_example(data)
                key = _field(features, "filename", bytes).decode()
                label = _field(features, "label", int)
                _field(features, "image", bytes)
            except ValueError as error:
                raise UsageError(f"{where} is not a frame of DMLab: {error}") from error
            if not 0 <= label <= 5 or key in frames:
                raise UsageError(f"{where}: {key!r} with label {label} is there twice or not 0..5.")
            frames[key] = Frame(file, number, record, label)
    return frames


def _field(features: Features, name: str, kind: type[Kind]) -> Kind:
    """The one value of a feature. Raises ValueError if there is none of that kind."""
    values = features.get(name, [])
    if len(values) != 1 or not isinstance(values[0], kind):
        raise ValueError(f"it has not one {kind.__name__} called {name!r}")
    return values[0]


def _image(frame: Frame, where: str) -> Image.Image:
    try:
        features = tfrecord.parse_example(tfrecord.read(frame.file, frame.record))
        data = _field(features, "image", bytes)
        with Image.open(io.BytesIO(data)) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise RunError(f"cannot decode {where}: {error}") from error
