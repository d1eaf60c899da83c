"""Backends are found by their file names and keep to one shape."""

from __future__ import annotations

import inspect

import pytest

from petlbench import backends
from petlbench.errors import UsageError


@pytest.mark.parametrize("name", backends.names())
def test_a_backend_has_what_is_asked_of_it(name: str) -> None:
    module = backends.load(name)
    assert module.__doc__ and type(module.ELSEWHERE) is bool
    assert list(inspect.signature(module.require).parameters) == ["resources"]
    asked = ["work", "specs", "store", "machine", "resources"]
    assert list(inspect.signature(module.run).parameters) == asked


def test_an_unknown_backend_is_refused() -> None:
    assert {"local", "slurm", "ray", "dask"} <= set(backends.names())
    with pytest.raises(UsageError, match=r"unknown backend 'locl'\. Did you mean local\?"):
        backends.load("locl")
