"""This machine: worker processes, or this process where one run at a time is enough."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from petlbench import apart
from petlbench.backends import Outcome, Work
from petlbench.errors import UsageError

if TYPE_CHECKING:
    from petlbench.experiment import Machine
    from petlbench.spec import RunSpec
    from petlbench.store import Store

ELSEWHERE = False


def require(resources: Mapping[str, Any]) -> None:
    if resources:
        raise UsageError(
            f"--resource {next(iter(resources))}: on this machine say --jobs, --threads and "
            "--device instead; resources are for another --backend, such as slurm."
        )


def run(
    work: Work,
    specs: Sequence[RunSpec],
    store: Store,
    machine: Machine,
    resources: Mapping[str, Any],
) -> Iterator[Outcome]:
    if machine.jobs > 1:
        yield from apart.outcomes(work, specs, store, machine)
    else:
        for spec in specs:
            yield work(spec, machine)
