"""Sweeps on a dask cluster of this machine: workers die, and sweeps end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backends._sweeps import DIED, assert_same_bits, here, mortal, status
from petlbench import api, plan
from petlbench.backends import dask as backend
from petlbench.errors import UsageError
from petlbench.experiment import Machine
from petlbench.request import Request

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Two workers, as `dask scheduler` and `dask worker` start them."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PETLBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address=None
        ) as started:
            yield started


@pytest.fixture
def sent(small: dict[str, Any], cluster: Any) -> dict[str, Any]:
    """Arguments of a very short run that is sent to the cluster."""
    settings = small["settings"] | {"protocol.precision": "fp32"}
    chosen = {"settings": settings, "attention": "explicit", "jobs": None}
    resources = {"address": cluster.scheduler_address}
    return small | chosen | {"backend": "dask", "resources": resources}


def test_workers_give_the_same_bits_as_this_machine(sent: dict[str, Any]) -> None:
    result = api.run(**sent | {"seeds": 3})
    assert (result.done, result.failed) == (3, 0)
    api.run(**here(sent, seeds=3, results="here"))
    assert_same_bits("results/small", "here", 3)


def test_a_run_that_is_killed_takes_no_neighbour_along(
    sent: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = sent | {"methods": ["bitfit", mortal(tmp_path, "run"), "linear"]}
    result = api.run(**request)
    assert (result.done, result.failed) == (2, 1)
    assert f"failed: dies on digits, seed 0: {DIED} (KilledWorker" in capsys.readouterr().err
    assert status() == {"bitfit": "done", "dies": "failed", "linear": "done"}

    (tmp_path / "die").unlink()
    again = api.run(**here(request))  # another backend ends the sweep
    assert (again.done, again.failed) == (3, 0)
    assert set(status().values()) == {"done"}


def test_the_run_of_a_worker_that_dies_is_made_by_another_one(
    sent: dict[str, Any], tmp_path: Path
) -> None:
    result = api.run(**sent | {"methods": ["bitfit", mortal(tmp_path, "once"), "linear"]})
    assert (result.done, result.failed) == (3, 0)
    assert not (tmp_path / "die").exists()


def test_each_worker_of_this_machine_has_a_gpu_of_its_own(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(spec: Any, machine: Any) -> Any:
        time.sleep(1)
        return spec, os.environ["CUDA_VISIBLE_DEVICES"], f"{machine.device} {machine.jobs}"

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    settings = small["settings"] | {"protocol.precision": "fp32"}
    request = small | {"settings": settings, "device": "cuda", "seeds": 2, "jobs": None}
    made = plan.make(Request(**request, backend="dask"))
    found = list(backend.run(work, made.specs, made.store, made.machine, {}))
    assert {spec.seed for spec, _, _ in found} == {0, 1}
    assert {gpu for _, gpu, _ in found} == {"2", "5"}
    assert {device for _, _, device in found} == {"cuda 1"}


def test_a_cluster_of_this_machine_has_no_more_workers_than_places(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(plan, "usable_cores", lambda: 8)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    counts = {
        (device, jobs): len(backend._environments(Machine(device, threads=2, jobs=jobs)))
        for device in ("cpu", "cuda")
        for jobs in (3, 90)
    }
    assert counts == {("cpu", 3): 3, ("cpu", 90): 4, ("cuda", 3): 3, ("cuda", 90): 4}


def test_a_run_on_several_devices_is_refused(sent: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"--devices-per-run 2: workers of dask have a GPU each"):
        api.run(**sent | {"devices_per_run": 2})


def test_workers_that_do_not_fit_are_refused(
    sent: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "PATIENCE", 1.0)
    with pytest.raises(
        UsageError, match=r"no worker with --resources GPU=1 for 1 s\..*dask worker"
    ):
        api.run(**sent | {"resources": sent["resources"] | {"gpus": 1}})
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None
        ) as threads,
        pytest.raises(UsageError, match=r"several threads.*--nthreads 1, and --nworkers N"),
    ):
        api.run(**sent | {"resources": {"address": threads.scheduler_address}})


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"resources": {"gpu": 1}}, r"unknown resource 'gpu'\. Did you mean gpus"),
        ({"resources": {"gpus": 0}}, r"gpus=0: it must be a number above 0"),
        ({"device": "auto"}, r"say --device cuda or --device cpu"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_runs(
    small: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        Request(**small | {"backend": "dask"} | changes)


def test_a_scheduler_file_that_is_not_there_is_a_message() -> None:
    with (
        pytest.raises(UsageError, match=r"address=cluster.json: there is no such scheduler file"),
        backend._connected(Machine(), 1, "cluster.json"),
    ):
        pytest.fail("connected")


def test_a_scheduler_that_does_not_answer_is_a_message(tmp_path: Path) -> None:
    import dask

    with (
        dask.config.set({"distributed.comm.timeouts.connect": "1s"}),
        pytest.raises(UsageError, match=r"--backend dask: 127.0.0.1:1 does not answer"),
        backend._connected(Machine(), 1, "127.0.0.1:1"),
    ):
        pytest.fail("connected")


def test_without_dask_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'petlbench\[dask\]'"):
        backend.require({})
