"""Sweeps on a ray cluster of this machine: processes and machines die, and sweeps end."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest

from backends._sweeps import DIED, assert_same_bits, here, mortal, status
from petlbench import api, plan
from petlbench.backends import ray as backend
from petlbench.errors import UsageError
from petlbench.experiment import Machine
from petlbench.request import Request
from petlbench.store import Store

pytest.importorskip("ray")
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80_000_000}
HEAD = NODE | {
    "num_cpus": 0,
    "include_dashboard": False,
    "_system_config": {"health_check_period_ms": 1000, "health_check_failure_threshold": 3},
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head that takes no runs, and two machines that take one each; one claims two GPUs."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("PETLBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        patched.setenv("RAY_USAGE_STATS_ENABLED", "0")
        started = Cluster(True, head_node_args=HEAD)
        started.add_node(**NODE)
        started.add_node(**NODE, num_gpus=2)
        yield started
        started.shutdown()


@pytest.fixture
def sent(small: dict[str, Any], cluster: Any) -> dict[str, Any]:
    """Arguments of a very short run that is sent to the cluster."""
    settings = small["settings"] | {"protocol.precision": "fp32"}
    chosen = {"settings": settings, "attention": "explicit", "jobs": None}
    return small | chosen | {"backend": "ray", "resources": {"address": cluster.address}}


def test_tasks_give_the_same_bits_as_this_machine(sent: dict[str, Any]) -> None:
    result = api.run(**sent | {"seeds": 3})
    assert (result.done, result.failed) == (3, 0)
    api.run(**here(sent, seeds=3, results="here"))
    assert_same_bits("results/small", "here", 3)


def test_each_run_sees_the_gpu_that_ray_gave_it(sent: dict[str, Any]) -> None:
    def work(spec: Any, machine: Any) -> Any:
        time.sleep(1)
        return spec, os.environ["CUDA_VISIBLE_DEVICES"], f"{machine.device} {machine.jobs}"

    resources = sent["resources"] | {"num_cpus": 0.5}
    made = plan.make(Request(**sent | {"device": "cuda", "seeds": 2, "resources": resources}))
    found = list(backend.run(work, made.specs, made.store, made.machine, resources))
    assert {spec.seed for spec, _, _ in found} == {0, 1}
    assert {gpu for _, gpu, _ in found} == {"0", "1"}
    assert {device for _, _, device in found} == {"cuda 1"}


def test_what_no_machine_of_the_cluster_has_is_refused(sent: dict[str, Any]) -> None:
    told = "asks for, 64 CPU and 0 GPU; the largest have 1 CPU and 2 GPU"
    with pytest.raises(UsageError, match=told):
        api.run(**sent | {"resources": sent["resources"] | {"num_cpus": 64}})
    with pytest.raises(UsageError, match=r"asks for, 3 CPU and 3 GPU;"):
        api.run(**sent | {"device": "cuda", "threads": 1, "devices_per_run": 3})


def test_a_run_that_is_killed_takes_no_neighbour_along(
    sent: dict[str, Any], tmp_path: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    request = sent | {"methods": ["bitfit", mortal(tmp_path, "run"), "linear"]}
    result = api.run(**request)
    assert (result.done, result.failed) == (2, 1)
    assert f"failed: dies on digits, seed 0: {DIED} (" in capsys.readouterr().err
    assert status() == {"bitfit": "done", "dies": "failed", "linear": "done"}

    (tmp_path / "die").unlink()
    again = api.run(**here(request))  # another backend ends the sweep
    assert (again.done, again.failed) == (3, 0)
    assert set(status().values()) == {"done"}


def test_the_runs_of_a_machine_that_dies_are_made_by_another_one(
    sent: dict[str, Any], tmp_path: Any
) -> None:
    methods = ["bitfit", mortal(tmp_path, "parent"), "linear"]  # the parent is the machine's raylet
    result = api.run(**sent | {"methods": methods})
    assert (result.done, result.failed) == (3, 0)
    assert not (tmp_path / "die").exists()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"resources": {"num_gpu": 1}}, r"unknown resource 'num_gpu'\. Did you mean num_gpus"),
        ({"resources": {"num_cpus": "two"}}, r"num_cpus=two: it must be a whole number or a part"),
        ({"resources": {"num_gpus": 1.5}}, r"num_gpus=1.5: it must be a whole number or a part"),
        ({"device": "auto"}, r"say --device cuda or --device cpu"),
    ],
)
def test_what_cannot_be_sent_is_refused_before_anything_runs(
    small: dict[str, Any], changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told):
        Request(**small | {"backend": "ray"} | changes)


@pytest.mark.parametrize(
    ("devices", "given", "told"),
    [(1, 0, "needs 1, or a part of one such as 0.5"), (2, 1, r"needs 2\.")],
)
def test_a_run_on_a_gpu_needs_one(devices: int, given: int, told: str) -> None:
    machine = Machine(device="cuda", devices_per_run=devices)
    outcomes = backend.run(lambda *_: pytest.fail(), [], Store("r"), machine, {"num_gpus": given})
    with pytest.raises(UsageError, match=f"--resource num_gpus={given}: .*{told}"):
        next(outcomes)


def test_a_cluster_that_does_not_answer_is_a_message(small: dict[str, Any]) -> None:
    with (
        pytest.raises(UsageError, match=r"--backend ray: 127.0.0.1:1 does not answer"),
        backend._connected("127.0.0.1:1"),
    ):
        pytest.fail("connected")


def test_without_ray_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'petlbench\[ray\]'"):
        backend.require({})
