"""manifest.json: lies beside a prepared task and says how it came about, and what it must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petlbench.errors import UsageError

NAME = "manifest.json"
SCHEMA = 1
_MALFORMED = (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True)
class Manifest:
    """What `petlbench data prepare` made."""

    task: str
    lineage: str
    """"lossless" (every pixel as published), "noah-jpeg" (NOAH's JPEGs) or "unknown"."""
    source: Mapping[str, str]
    """`name`, and what else is known: title, url, licence, sha256 of the archive."""
    splits: Mapping[str, Mapping[str, Any]]
    """Split -> `count`; `pixels`, the SHA-256 of `<split>.digests` (data/digest.py); and, where
    the source has keys, `keys`: that of the keys in order, with a newline between two."""

    def text(self) -> str:
        from petlbench import __version__

        content = {
            "schema": SCHEMA,
            "task": self.task,
            "lineage": self.lineage,
            "source": dict(self.source),
            "splits": {name: dict(split) for name, split in self.splits.items()},
            "petlbench": __version__,
        }
        return json.dumps(content, indent=1) + "\n"


def read(folder: Path) -> tuple[Manifest, str] | None:
    """The manifest in `folder` and the SHA-256 of its file; None where there is none.

    Raises UsageError naming the file if it is not a manifest.
    """
    file = folder / NAME
    try:
        content = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}") from error
    try:
        values = json.loads(content)
        if values["schema"] != SCHEMA:
            raise ValueError(f"schema {values['schema']!r}, and {SCHEMA} is known")
        splits = {
            str(name): {**split, "count": int(split["count"]), "pixels": str(split["pixels"])}
            for name, split in values["splits"].items()
        }
        source = {str(name): str(value) for name, value in values["source"].items()}
        source["name"]
        made = Manifest(str(values["task"]), str(values["lineage"]), source, splits)
    except _MALFORMED as error:
        raise UsageError(
            f"{file} is not a manifest of petlbench ({type(error).__name__}: {error}). Prepare "
            f"the task again (petlbench data prepare --force), or remove the file."
        ) from error
    return made, hashlib.sha256(content).hexdigest()
