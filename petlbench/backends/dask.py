"""A dask cluster: each run is a task in a worker that has one thread, and a GPU of its own.

Resources are

    address    of the scheduler, host:port or its scheduler file; without it a cluster of this
               machine with --jobs workers, at most one for each GPU or as many as have --threads
               cores each, until the command ends
    gpus       how much of GPU a run takes of its worker, where workers say what they have:
               dask worker --resources GPU=1

Start workers with --nthreads 1 (where there are GPUs by `dask cuda worker`, of dask-cuda): a worker
is the process that its run may take along when it dies. At most `--jobs` runs are sent at a time.
All machines must see the results folder, the data root and the files of methods under the same
paths, and have the same petlbench. A run whose worker dies is tried again, by dask, as often as its
scheduler is set to (allowed-failures: once in a cluster of this machine). After Ctrl-C other
machines finish the runs that have begun.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from petlbench import apart
from petlbench.backends import Outcome, Work
from petlbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from petlbench.experiment import Machine
    from petlbench.spec import RunSpec
    from petlbench.store import Store

ELSEWHERE = True
PATIENCE = 60.0  # seconds to wait for a worker
HERE = {
    "distributed.scheduler.allowed-failures": 1,
    "distributed.scheduler.worker-saturation": 1.0,  # a run that dies has nobody waiting behind it
    "distributed.worker.daemon": False,  # may have processes that prepare images
}
# in a worker; Ctrl-C is the command's to handle, without a traceback from each
DEAF = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"


def require(resources: Mapping[str, Any]) -> None:
    if find_spec("distributed") is None:
        raise UsageError("--backend dask needs dask.distributed: pip install 'petlbench[dask]'")
    for name in resources:
        if name not in ("address", "gpus"):
            raise unknown("resource", name, ("address", "gpus"), "(--backend dask)")
    gpus = resources.get("gpus", 1)
    if type(gpus) not in (int, float) or gpus <= 0:
        raise UsageError(f"--resource gpus={gpus}: it must be a number above 0.")


# joblib's backend for dask sends everything at once: where a worker dies, dask counts that against
# all runs that wait for this worker as well.
def run(
    work: Work,
    specs: Sequence[RunSpec],
    store: Store,
    machine: Machine,
    resources: Mapping[str, Any],
) -> Iterator[Outcome]:
    from distributed import CancelledError, wait

    if machine.devices_per_run > 1:
        raise UsageError(
            f"--devices-per-run {machine.devices_per_run}: workers of dask have a GPU each; use "
            "--backend slurm or ray, or this machine."
        )
    needs = {"GPU": resources["gpus"]} if "gpus" in resources else {}
    alone = replace(machine, jobs=1)  # a worker has its own processors and GPU
    todo = iter(specs)
    busy: dict[Any, RunSpec] = {}
    with _connected(machine, len(specs), resources.get("address")) as client:
        try:
            while True:
                free = min(machine.jobs, _workers(client, needs)) - len(busy)
                for spec in itertools.islice(todo, max(0, free)):
                    future = client.submit(_call, work, spec, alone, pure=False, resources=needs)
                    busy[future] = spec
                if not busy:
                    return
                try:
                    done = wait(list(busy), PATIENCE, "FIRST_COMPLETED").done
                except TimeoutError:
                    continue  # and see whether there are workers
                for future in done:
                    yield _outcome(future, busy.pop(future), store, alone)
        except (CancelledError, OSError) as error:
            busy.clear()  # nobody is there to cancel them
            raise UsageError(
                "--backend dask: the scheduler is gone. Finished runs are recorded; type the same "
                "command to go on."
            ) from error
        finally:
            client.cancel(list(busy))


@contextmanager
def _connected(machine: Machine, runs: int, address: str | None) -> Iterator[Any]:
    """A client of that cluster, or of one of this machine."""
    import dask
    from distributed import Client, Nanny, Scheduler, SpecCluster

    logging.getLogger("distributed").setLevel(logging.CRITICAL)  # what matters is an outcome
    if address is not None:
        if os.path.exists(address):
            where = {"scheduler_file": address}
        elif ":" in address:
            where = {"address": address}
        else:
            raise UsageError(
                f"--resource address={address}: there is no such scheduler file, and an address "
                "is host:port. Start a cluster with: dask scheduler --scheduler-file FILE"
            )
        try:
            client = Client(**where)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--backend dask: {address} does not answer ({error}). Start a cluster with: dask "
                "scheduler"
            ) from error
        with client:
            yield client
        return
    common: dict[str, Any] = {"nthreads": 1, "memory_limit": 0, "preload": [DEAF]}
    common["silence_logs"] = logging.CRITICAL
    workers = {
        number: {"cls": Nanny, "options": common | {"env": environment}}
        for number, environment in enumerate(_environments(machine)[:runs])
    }
    local = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    scheduler = {"cls": Scheduler, "options": local}
    with (
        dask.config.set(HERE),
        SpecCluster(workers, scheduler, silence_logs=logging.CRITICAL) as cluster,
        Client(cluster) as client,
    ):
        yield client


def _environments(machine: Machine) -> list[dict[str, str]]:
    """Of each worker of a cluster of this machine."""
    import torch

    from petlbench.plan import usable_cores

    threads = {"OMP_NUM_THREADS": str(machine.threads)}
    if machine.device == "cuda":
        told = os.environ.get("CUDA_VISIBLE_DEVICES")
        gpus = told.split(",") if told else list(map(str, range(torch.cuda.device_count())))
        found = [threads | {"CUDA_VISIBLE_DEVICES": gpu} for gpu in gpus]
    else:
        found = [threads] * max(1, usable_cores() // machine.threads)
    return found[: machine.jobs]


def _workers(client: Any, needs: Mapping[str, float]) -> int:
    """How many workers can take a run. Waits for one, but not for ever."""
    end = time.monotonic() + PATIENCE
    while True:
        known = client.scheduler_info(n_workers=-1)["workers"].values()
        fit = [w for w in known if all(w["resources"].get(n, 0) >= needs[n] for n in needs)]
        if any(worker["nthreads"] > 1 for worker in fit):
            raise UsageError(
                "--backend dask: a worker has several threads, but a run needs a process of its "
                "own. Start workers with --nthreads 1, and --nworkers N for N runs at a time."
            )
        if fit:
            return len(fit)
        if time.monotonic() > end:
            asked = " ".join(f"with --resources {name}={needs[name]}" for name in needs)
            raise UsageError(
                f"--backend dask: no worker {asked}".rstrip() + f" for {PATIENCE:.0f} s. Finished "
                "runs are recorded; start workers with: dask worker ADDRESS --nthreads 1"
            )
        time.sleep(0.5)


def _call(work: Work, spec: RunSpec, machine: Machine) -> Outcome:
    if multiprocessing.current_process().daemon:  # it may not have processes: images in turn
        machine = replace(machine, workers=0)
    return work(spec, machine)


def _outcome(future: Any, spec: RunSpec, store: Store, machine: Machine) -> Outcome:
    from distributed import KilledWorker

    try:
        outcome: Outcome = future.result()
        return outcome
    except KilledWorker:
        return apart.died(spec, store, machine, f"{apart.DIED} (KilledWorker of dask)")
