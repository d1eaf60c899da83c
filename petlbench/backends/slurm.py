"""A cluster with SLURM: submitit sends array jobs, each with a chunk of the runs.

Resources are those of submitit (timeout_min, mem_gb, gpus_per_node, cpus_per_task, slurm_partition,
...) and

    runs_per_job     length of a chunk; by default as many as keep the array within 1000 jobs
    cluster          slurm; local and debug execute the same jobs on this machine, to try them out

At most `--jobs` jobs run at a time. The logs of submitit are in <results>/jobs. Jobs go on when the
command that sent them ends, also by Ctrl-C. A job that SLURM preempts or that has used up its time
is requeued and goes on behind its last record.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench import apart
from petlbench.backends import Outcome, Work
from petlbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from petlbench.experiment import Machine
    from petlbench.spec import RunSpec
    from petlbench.store import Store

ELSEWHERE = True
ARRAY = 1000  # jobs; clusters allow 1001 unless set up otherwise
POLL = 2.0  # seconds between looks at the jobs
OURS = ("runs_per_job", "cluster")
SHARED = (  # by all clusters of submitit; the others begin with the name of theirs
    *("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node"),
    "stderr_to_stdout",
)


def require(resources: Mapping[str, Any]) -> None:
    if find_spec("submitit") is None:
        raise UsageError("--backend slurm needs submitit: pip install 'petlbench[slurm]'")
    for name in resources:
        if name not in (*OURS, *SHARED) and not name.startswith("slurm_"):
            hint = "Those of SLURM itself begin with slurm_, such as slurm_partition."
            raise unknown("resource", name, (*OURS, *SHARED), hint)
    _executor("jobs", {**resources, "cluster": "debug"})  # kinds of values, without SLURM
    if "timeout_min" not in resources:
        raise UsageError(
            "--backend slurm: say after how many minutes a job may be ended, as in "
            "--resource timeout_min=240; it must be enough for one run."
        )
    length = resources.get("runs_per_job", 1)
    if type(length) is not int or length < 1:
        raise UsageError(
            f"--resource runs_per_job={length}: it must be a whole number of at least 1."
        )


def run(
    work: Work,
    specs: Sequence[RunSpec],
    store: Store,
    machine: Machine,
    resources: Mapping[str, Any],
) -> Iterator[Outcome]:
    from submitit.helpers import as_completed

    folder = store.folder.absolute() / "jobs" / "%j"
    executor = _executor(folder, {"slurm_array_parallelism": machine.jobs, **resources})
    length = resources.get("runs_per_job", -(-len(specs) // ARRAY))
    alone = replace(machine, jobs=1)  # a job has its own processors or GPU
    chunks = [
        Chunk(work, tuple(specs[start : start + length]), store, alone)
        for start in range(0, len(specs), length)
    ]
    with _deaf():
        jobs = executor.submit_array(chunks)
    chunk_of = dict(zip((job.job_id for job in jobs), chunks, strict=True))
    for job in as_completed(jobs, poll_frequency=POLL):
        if job.exception() is None:
            yield from job.result()
            continue
        for spec in chunk_of[job.job_id].specs:  # what the job left
            if store.read(spec.key, machine.peek) is not None:
                yield spec, "done", ""
            else:
                yield (
                    spec,
                    "failed",
                    f"its job ended before it was recorded; see {job.paths.stderr}",
                )


@contextmanager
def _deaf() -> Iterator[None]:
    """Jobs of this machine inherit that: Ctrl-C ends the command and not them, as with SLURM."""
    if threading.current_thread() is not threading.main_thread():  # which alone has signals
        yield
        return
    heard = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, heard)


def _executor(folder: Path | str, resources: Mapping[str, Any]) -> Any:
    import submitit

    given = {name: value for name, value in resources.items() if name not in OURS}
    try:
        executor = submitit.AutoExecutor(folder, resources.get("cluster", "slurm"))
        executor.update_parameters(name="petlbench", **given)
    except RuntimeError as error:  # no SLURM here
        hint = "To try the same jobs out without SLURM: --resource cluster=local"
        raise UsageError(f"--backend slurm: {error} {hint}") from error
    except (AssertionError, NameError, ValueError) as error:
        raise UsageError(f"--backend slurm: {error}") from error
    return executor


@dataclass(frozen=True)
class Chunk:
    """The runs of one job, one after the other, each in a process that may die alone."""

    work: Work
    specs: tuple[RunSpec, ...]
    store: Store
    machine: Machine

    def __call__(self) -> list[Outcome]:
        # left early, before a requeue, it ends the run as well
        return list(apart.outcomes(self.work, self.specs, self.store, self.machine))

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again: the same; what is recorded is not run again."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
