"""A source with a tiny fake of its data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prepare import fakes

Faked = Callable[..., tuple[Any, Path]]


@pytest.fixture
def faked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Faked:
    """(name of a source, another writer) -> its module, and the raw folder written for it."""

    def make(name: str, write: Callable[[Path], fakes.Counts] | None = None) -> tuple[Any, Path]:
        raw = tmp_path / "RAW" / name
        counts = (write or fakes.FAKES[name])(raw)
        return fakes.sized(monkeypatch, name, counts), raw

    return make
