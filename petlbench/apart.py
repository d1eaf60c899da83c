"""Worker processes of this machine: one that dies costs what it was doing, and nothing else.

They are joblib's (loky's), one executor for each: an executor gives up as a whole when one of its
processes dies.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import TYPE_CHECKING, Any, TypeVar

from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor
from joblib.externals.loky.process_executor import TerminatedWorkerError

from petlbench.backends import Outcome, Work
from petlbench.errors import UsageError

if TYPE_CHECKING:
    from petlbench.experiment import Machine
    from petlbench.spec import RunSpec
    from petlbench.store import Store

DIED = "the process of this run died: killed, for lack of memory, or by a method's own doing"
IDLE = 300.0  # seconds that a worker stays for the next time: importing torch takes some
T = TypeVar("T")

_free: dict[int, list[ProcessPoolExecutor]] = {}  # by their threads


def outcomes(
    work: Work, specs: Sequence[RunSpec], store: Store, machine: Machine
) -> Iterator[Outcome]:
    """Each run in a worker, `machine.jobs` at a time; one whose worker died has failed."""
    calls = [(work, (spec, machine)) for spec in specs]
    for number, future in _finished(calls, machine.jobs, machine.threads, _succeeded):
        try:
            yield future.result()
        except TerminatedWorkerError:
            yield died(specs[number], store, machine)


def _succeeded(outcome: Outcome) -> bool:
    """Else its process is not used again: an error of a GPU would be that of all runs after it."""
    return outcome[1] != "failed"


def died(spec: RunSpec, store: Store, machine: Machine, why: str = DIED) -> Outcome:
    """Record a run whose process died, unless it was recorded before."""
    from petlbench import experiment

    record = experiment.died(spec, store, machine, why)
    return spec, record["status"], record.get("error", {}).get("message", "")


def side_by_side(
    calls: Sequence[tuple[Callable[..., T], tuple[Any, ...]]], jobs: int, threads: int
) -> Iterator[T]:
    """What the calls give, as workers finish them. Raises UsageError if a worker dies."""
    for _, future in _finished(calls, jobs, threads):
        try:
            yield future.result()
        except TerminatedWorkerError as error:
            raise UsageError(
                "a worker process died, for lack of memory or by a method's own doing; type the "
                "same command with fewer workers: --jobs 1."
            ) from error


def _finished(
    calls: Sequence[tuple[Callable[..., T], tuple[Any, ...]]],
    jobs: int,
    threads: int,
    sound: Callable[[T], bool] = lambda found: True,
) -> Iterator[tuple[int, Future[T]]]:
    """The number of each call and its future, as they finish. Left early, it kills the busy.

    A worker has further calls after what is `sound`, and no error.
    """
    free = _taken(jobs, threads)
    busy: dict[Future[T], tuple[int, ProcessPoolExecutor]] = {}
    working: set[ProcessPoolExecutor] = set()  # known before its call: that may be interrupted
    todo = iter(enumerate(calls))
    try:
        while True:
            for number, (call, arguments) in itertools.islice(todo, jobs - len(busy)):
                working.add(worker := free.pop() if free else processes(1, threads))
                try:
                    future = worker.submit(call, *arguments)
                except BrokenProcessPool:  # it died while it was free
                    working.add(worker := processes(1, threads))
                    future = worker.submit(call, *arguments)
                busy[future] = number, worker
            if not busy:
                return
            for future in wait(busy, return_when=FIRST_COMPLETED).done:
                number, worker = busy.pop(future)
                working.discard(worker)
                if future.exception() is None and sound(future.result()):
                    free.append(worker)
                else:
                    worker.shutdown(kill_workers=True)
                yield number, future
    finally:
        for worker in working:
            worker.shutdown(kill_workers=True)
        _free.setdefault(threads, []).extend(free)


def _taken(jobs: int, threads: int) -> list[ProcessPoolExecutor]:
    """The free workers, at most `jobs` of them; the others end, since each may hold a GPU.

    They are nobody else's until they are given back: several threads may have work.
    """
    free = _free.pop(threads, [])
    others = free[jobs:]
    while _free:
        others += _free.popitem()[1]
    for worker in others:
        worker.shutdown(kill_workers=True)
    return free[:jobs]


def processes(count: int, threads: int, idle: float = IDLE) -> ProcessPoolExecutor:
    """Workers that end with their parent, and leave signals to it; idle ones end by themselves."""
    # loky replaces a worker that was idle, or whose memory has grown, and says so; nothing is lost
    warnings.filterwarnings("ignore", message="A worker stopped while some jobs")
    return ProcessPoolExecutor(
        count,
        timeout=idle,
        initializer=_initialise,
        initargs=(os.getpid(),),
        env={"OMP_NUM_THREADS": str(threads)},
    )


def _initialise(parent: int) -> None:
    """Signals to all are the parent's to handle: it ends its workers, without a traceback each."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):  # Windows has two of them
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A parent that is killed cannot end its workers, and they would wait for it for ever."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
