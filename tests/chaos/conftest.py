"""One sweep for all, which nothing has disturbed; and what was counted, at the end of the tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from chaos.sweep import Sweep

_counts: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if _counts:
        terminalreporter.section("chaos")
    for line in _counts:
        terminalreporter.write_line(line)


@pytest.fixture
def count() -> Callable[[str], None]:
    """Say what was counted; it is printed when all tests have run."""
    return _counts.append


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
