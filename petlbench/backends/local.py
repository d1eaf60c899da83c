"""This machine: joblib's worker processes, or this process where one run at a time is enough."""

from __future__ import annotations

import signal
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from petlbench.backends import Outcome, Work
from petlbench.errors import UsageError

if TYPE_CHECKING:
    from petlbench.experiment import Machine
    from petlbench.spec import RunSpec
    from petlbench.store import Store

ELSEWHERE = False
T = TypeVar("T")


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
    if machine.jobs == 1 or len(specs) <= 1:
        for spec in specs:
            yield work(spec, machine)
        return
    yield from side_by_side(
        [(work, (spec, machine)) for spec in specs], machine.jobs, machine.threads
    )


def side_by_side(
    calls: Sequence[tuple[Callable[..., T], tuple[Any, ...]]], jobs: int, threads: int
) -> Iterator[T]:
    """What the calls give, in the order in which `jobs` worker processes finish them.

    The workers stay for the next time. Raises UsageError if one of them dies.
    """
    import joblib
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    # loky replaces a worker whose memory has grown and says so; nothing is lost
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
    with joblib.parallel_config("loky", inner_max_num_threads=threads, initializer=_ignore_signals):
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        try:
            yield from parallel(joblib.delayed(call)(*arguments) for call, arguments in calls)
        except TerminatedWorkerError as error:
            raise UsageError(
                "a worker process died, for lack of memory or by a method's own doing. Finished "
                "runs are recorded; type the same command to go on, with fewer workers: --jobs 1."
            ) from error


def _ignore_signals() -> None:
    """Signals that end a sweep are for the parent: it stops the workers without a traceback."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
