"""Where runs are executed: one module per engine, found by its file name.

A backend is a module with these; the rest knows no more of it. It only spreads the work: claims and
records are the work's own, so that any backend may be interrupted and another one finish the sweep.

    docstring                what it is
    ELSEWHERE                whether runs are executed on other machines than the one that plans
    require(resources)       raise UsageError where it cannot be used, or not with these resources
    run(work, specs, store, machine, resources)
                             a generator of the outcome of work(spec, machine) for each spec, as
                             they finish; closed early, it ends the runs of this machine
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from petlbench import found

if TYPE_CHECKING:
    from petlbench.experiment import Machine
    from petlbench.spec import RunSpec

Outcome = tuple["RunSpec", str, str]  # status "done", "failed" or "elsewhere", and the failure
Work = Callable[["RunSpec", "Machine"], Outcome]  # can be pickled


def names() -> list[str]:
    return found.names(__path__)


def load(name: str) -> Any:
    """The module of that backend."""
    return found.load(__name__, "backend", name, names())
