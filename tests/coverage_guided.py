"""Fuzz the readers guided by coverage: python coverage_guided.py [options of libFuzzer] [CORPUS].

The first byte of an input chooses the reader. It ends at the first error that is not for people.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(
    include=["petlbench.data", "petlbench.prepare.archives", "petlbench.store", "petlbench.record"]
):
    from petlbench.data import captions, json_lists, lists, manifest, tables
    from petlbench.prepare import archives
    from petlbench.store import read_file


from petlbench.errors import RunError, UsageError

FOLDER = Path(tempfile.mkdtemp())


def extracted(file: Path) -> None:
    target = FOLDER / "out"
    try:
        archives.extract(file, target)
    finally:
        shutil.rmtree(target, ignore_errors=True)


READERS: list[tuple[str, Callable[[Path], object]]] = [
    ("test.txt", lambda file: lists.read(file, FOLDER, "test", 4)),
    ("train.json", json_lists.read),
    ("images.csv", tables.read),
    ("manifest.json", lambda file: manifest.read(file.parent)),
    ("task/dataset.json", lambda file: captions.open_split(FOLDER, "task", "train")),
    ("0123.json", read_file),
    ("x.zip", extracted),
    ("x.tar", extracted),
    ("x.tar.gz", extracted),
    ("x.png", lambda file: lists.of_files("test", [file], [0], "").read(0)),
]


def once(content: bytes) -> None:
    if not content:
        return
    name, read = READERS[content[0] % len(READERS)]
    file = FOLDER / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content[1:])
    with contextlib.suppress(UsageError, RunError):
        read(file)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, once)
    try:
        atheris.Fuzz()
    finally:
        shutil.rmtree(FOLDER)
