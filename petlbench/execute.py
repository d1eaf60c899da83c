"""Many runs: each is claimed, made and recorded by a worker, wherever a backend places it."""

from __future__ import annotations

import contextlib
import functools
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from filelock import FileLock, Timeout

from petlbench import backends
from petlbench.backends import Outcome
from petlbench.errors import RunError
from petlbench.experiment import Machine, run
from petlbench.progress import Display, Reporter
from petlbench.spec import RunSpec
from petlbench.store import Store

ELSEWHERE = "elsewhere"
PATIENCE = 30.0  # seconds: processes that a worker had started may outlive it, and hold its lock


def execute(
    specs: Sequence[RunSpec],
    store: Store,
    machine: Machine,
    display: Display,
    backend: str = "local",
    resources: Mapping[str, Any] = MappingProxyType({}),
) -> dict[str, str]:
    """Run every spec that is not recorded yet; returns key -> "done" or "failed".

    A run that another process has claimed is waited for at the end, and run here if that process
    gave up. Finished runs are on disk before this function hears of them: interrupting loses at
    most the runs in flight.
    """
    store.require_writable()
    run_all = backends.load(backend).run
    outcome: dict[str, str] = {}
    with display.live():
        for wait in (False, True):
            todo = [spec for spec in specs if outcome.get(spec.key, ELSEWHERE) == ELSEWHERE]
            if not todo:
                break
            work = functools.partial(_run_one, store, wait)
            with contextlib.closing(run_all(work, todo, store, machine, resources)) as outcomes:
                for spec, status, message in outcomes:
                    outcome[spec.key] = status
                    if status != ELSEWHERE:
                        display.advance()
                    if status == "failed":
                        name = f"{spec.method.label} on {spec.task}, seed {spec.seed}"
                        display.message(f"failed: {name}: {message}")
    return outcome


def _run_one(store: Store, wait: bool, spec: RunSpec, machine: Machine) -> Outcome:
    with store.claim(spec.key, wait) as mine:
        if not mine:
            return spec, ELSEWHERE, ""
        if store.read(spec.key, machine.peek) is not None:  # another process finished it meanwhile
            return spec, "done", ""
        if machine.device == "cuda" and machine.jobs > 1:
            own = _own_device(store, machine.jobs, machine.devices_per_run)
            machine = replace(machine, device=own)
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


# Held for the life of a worker process; the operating system releases it when the process ends.
_held: list[FileLock] = []


def _own_device(store: Store, jobs: int, each: int = 1) -> str:
    """The GPU of this worker process, or the first of `each`: workers take them in turn."""
    import torch

    end = time.monotonic() + PATIENCE
    while not _held:
        for worker in range(jobs):
            lock = FileLock(store.claims / f"{platform.node()}-{worker}.lock")
            with contextlib.suppress(Timeout):
                lock.acquire(timeout=0)
                _held.append(lock)
                break
        else:
            if time.monotonic() > end:
                raise RunError(
                    f"more than {jobs} workers ask for a GPU of {store.folder}: another command "
                    "works there on this machine. Wait until it has ended."
                )
            time.sleep(0.1)
    worker = int(Path(_held[0].lock_file).stem.rpartition("-")[2])
    return f"cuda:{each * (worker % (torch.cuda.device_count() // each))}"
