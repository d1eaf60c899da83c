"""A ray cluster: each run is a task of ray, in a process of its own and with a GPU of its own.

Resources are those of a task, and

    address     of the cluster: auto (this machine belongs to it), host:port or ray://host:port;
                without it this machine is the cluster, until the command ends
    num_cpus    that a run takes; --threads for each of its devices unless given
    num_gpus    that a run takes; --devices-per-run with --device cuda unless given, and with 0.5
                two share a GPU

At most `--jobs` runs are sent at a time. All machines must see the results folder, the data root
and the files of methods under the same paths, and have the same petlbench. A run whose process or
machine dies is tried once more, by ray, and has failed if it dies again. Ctrl-C ends the runs.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from petlbench import apart
from petlbench.backends import Outcome, Work
from petlbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from petlbench.experiment import Machine
    from petlbench.spec import RunSpec
    from petlbench.store import Store

ELSEWHERE = True
PATIENCE = 60.0  # seconds without an outcome, after which is asked whether any can come
STORE = 100_000_000  # bytes for objects of a cluster of this machine; results do not pass there


def require(resources: Mapping[str, Any]) -> None:
    if find_spec("ray") is None:
        raise UsageError("--backend ray needs ray: pip install 'petlbench[ray]'")
    for name, value in resources.items():
        if name not in ("address", "num_cpus", "num_gpus"):
            raise unknown("resource", name, ("address", "num_cpus", "num_gpus"), "(--backend ray)")
        number = type(value) in (int, float) and (0 <= value < 1 or value == int(value) > 0)
        if name != "address" and not number:
            raise UsageError(
                f"--resource {name}={value}: it must be a whole number or a part of one, such as "
                "0.5."
            )


# joblib's backend for ray gives outcomes only when all are there, and ends when a worker dies.
def run(
    work: Work,
    specs: Sequence[RunSpec],
    store: Store,
    machine: Machine,
    resources: Mapping[str, Any],
) -> Iterator[Outcome]:
    devices = machine.devices_per_run
    needs = {
        "num_cpus": machine.threads * devices,
        "num_gpus": devices if machine.device == "cuda" else 0,
    }
    needs |= {name: value for name, value in resources.items() if name in needs}
    gpus = needs["num_gpus"]  # several runs may share one, ranks of a run may not
    if machine.device == "cuda" and (gpus < devices if devices > 1 else gpus == 0):
        raise UsageError(
            f"--resource num_gpus={gpus}: with --device cuda a run needs {devices}"
            + (", or a part of one such as 0.5." if devices == 1 else ".")
        )
    alone = replace(machine, jobs=1)  # a task has its own processors and GPU
    todo = iter(specs)
    busy: dict[Any, RunSpec] = {}
    with _connected(resources.get("address")) as ray:
        _require_room(ray, needs)
        # ray does not tell the death of a run from that of its machine: once more for either
        task = ray.remote(_call).options(max_retries=1, **needs)
        try:
            while True:
                for spec in itertools.islice(todo, machine.jobs - len(busy)):
                    busy[task.remote(work, spec, alone)] = spec
                if not busy:
                    return
                finished, _ = ray.wait(list(busy), timeout=PATIENCE)
                if not finished:
                    _require_room(ray, needs)
                for reference in finished:
                    yield _outcome(ray, reference, busy.pop(reference), store, alone)
        finally:
            for reference in busy:
                ray.cancel(reference)


@contextmanager
def _connected(address: str | None) -> Iterator[Any]:
    """The module ray, connected as it was before, else to this cluster or to one of its own."""
    import ray

    if ray.is_initialized():
        yield ray
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
    where: dict[str, Any]
    if address is None:
        where = {"include_dashboard": False, "object_store_memory": STORE}
    else:
        where = {"address": address}
    terminated = signal.getsignal(signal.SIGTERM)
    try:
        _require_answer(address or "")
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
    except (OSError, RuntimeError, ValueError) as error:
        raise UsageError(
            f"--backend ray: {address or 'this machine'} does not answer ({error}). Start a "
            "cluster with: ray start --head"
        ) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, terminated)  # ray puts its own in the place
    try:
        yield ray
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise OSError or ValueError where nobody listens: ray would try for a quarter of an hour."""
    url = urlsplit(address if "://" in address else f"//{address}")
    if url.port is not None:
        socket.create_connection((url.hostname, url.port), timeout=10).close()


def _call(work: Work, spec: RunSpec, machine: Machine) -> Outcome:
    return work(spec, machine)


def _require_room(ray: Any, needs: Mapping[str, float]) -> None:
    """Refuse what no machine of the cluster can take: ray would wait for one for ever."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": needs["num_cpus"], "GPU": needs["num_gpus"]}
    if not any(all(has.get(n, 0) >= amount for n, amount in asked.items()) for has in machines):
        largest = {name: max(has.get(name, 0) for has in machines) for name in asked}
        raise UsageError(
            f"--backend ray: no machine of the cluster has what a run asks for, {_told(asked)}; "
            f"the largest have {_told(largest)}. Finished runs are recorded; add a machine, or ask "
            "for less with --threads, --resource num_cpus=N or --resource num_gpus=N."
        )


def _told(amounts: Mapping[str, float]) -> str:
    return " and ".join(f"{amount:g} {name}" for name, amount in amounts.items())


def _outcome(ray: Any, reference: Any, spec: RunSpec, store: Store, machine: Machine) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
        return outcome
    except ray.exceptions.RayTaskError as error:  # the work's own, such as a disk that is full
        raise error.cause from None
    except ray.exceptions.RayError as error:
        why = f"{apart.DIED} ({type(error).__name__} of ray)"
        return apart.died(spec, store, machine, why)
