"""Many runs on one machine: joblib workers that claim, run and record."""

from __future__ import annotations

import contextlib
import platform
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from petlbench.errors import RunError, UsageError
from petlbench.experiment import Machine, run
from petlbench.progress import Display, Reporter
from petlbench.spec import RunSpec
from petlbench.store import Store

ELSEWHERE = "elsewhere"
T = TypeVar("T")


def execute(
    specs: Sequence[RunSpec], store: Store, machine: Machine, display: Display
) -> dict[str, str]:
    """Run every spec that is not recorded yet; returns key -> "done" or "failed".

    A run that another process has claimed is waited for at the end, and run here if that process
    gave up. Finished runs are on disk before this function hears of them: interrupting loses at
    most the runs in flight.
    """
    store.require_writable()
    outcome: dict[str, str] = {}
    with display.live():
        for wait in (False, True):
            todo = [spec for spec in specs if outcome.get(spec.key, ELSEWHERE) == ELSEWHERE]
            for spec, status, message in _run_all(todo, store, machine, wait):
                outcome[spec.key] = status
                if status != ELSEWHERE:
                    display.advance()
                if status == "failed":
                    name = f"{spec.method.label} on {spec.task}, seed {spec.seed}"
                    display.message(f"failed: {name}: {message}")
    return outcome


def _run_all(specs: Sequence[RunSpec], store: Store, machine: Machine, wait: bool) -> Any:
    if machine.jobs == 1 or len(specs) <= 1:
        for spec in specs:
            yield _run_one(spec, store, machine, wait)
        return
    yield from side_by_side(
        [(_run_one, (spec, store, machine, wait)) for spec in specs], machine.jobs, machine.threads
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
    with joblib.parallel_config(
        "loky", inner_max_num_threads=threads, initializer=_ignore_interrupt
    ):
        parallel = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")
        try:
            yield from parallel(joblib.delayed(call)(*arguments) for call, arguments in calls)
        except TerminatedWorkerError as error:
            raise UsageError(
                "a worker process died, for lack of memory or by a method's own doing. Finished "
                "runs are recorded; type the same command to go on, with fewer workers: --jobs 1."
            ) from error


def _run_one(spec: RunSpec, store: Store, machine: Machine, wait: bool) -> tuple[RunSpec, str, str]:
    with store.claim(spec.key, wait) as mine:
        if not mine:
            return spec, ELSEWHERE, ""
        if store.read(spec.key, machine.peek) is not None:  # another process finished it meanwhile
            return spec, "done", ""
        if machine.device == "cuda" and machine.jobs > 1:
            machine = replace(machine, device=_own_device(store, machine.jobs))
        reporter = Reporter(
            store.claims / f"{spec.key}.progress",
            f"{spec.method.label} on {spec.task}, seed {spec.seed}",
        )
        try:
            reporter("starting")
            record = run(spec, store, machine, reporter)
        finally:
            reporter.close()
    return spec, record["status"], record.get("error", {}).get("message", "")


def _ignore_interrupt() -> None:
    """Ctrl-C is the parent's to handle: it stops the workers without a traceback from each."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


# Held for the life of a worker process; the operating system releases it when the process ends.
_held: list[FileLock] = []


def _own_device(store: Store, jobs: int) -> str:
    """The GPU of this worker process: worker k of `jobs` here uses GPU k modulo their number."""
    import torch

    if not _held:
        for worker in range(jobs):
            lock = FileLock(store.claims / f"{platform.node()}-{worker}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                _held.append(lock)
                break
        else:
            raise RunError(f"more than {jobs} workers ask for a GPU of {store.folder}.")
    worker = int(Path(_held[0].lock_file).stem.rpartition("-")[2])
    return f"cuda:{worker % torch.cuda.device_count()}"
