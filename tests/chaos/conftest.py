"""One sweep for all, which nothing has disturbed; and what was counted, at the end of the tests."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.sweep import Sweep


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Say what was counted; it is printed when all tests have run (see tests/conftest.py)."""
    return functools.partial(record_property, "counted")


@pytest.fixture(scope="session")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    """Its images are there; they and the cache are shared, so leave them as they are."""
    made = Sweep(tmp_path_factory.mktemp("sweep"))
    made.prepare()
    return made


@pytest.fixture(scope="session")
def reference(sweep: Sweep) -> Path:
    """The results of the sweep, left alone."""
    results = sweep.home / "undisturbed"
    sweep.finish(results)
    return results
