"""Measured once, remembered per machine; and what the measurements are used for."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from petlbench import experiment, home, method, plan, speed, weights
from petlbench.errors import UsageError
from petlbench.experiment import Machine
from petlbench.request import Request
from petlbench.spec import RunSpec
from petlbench.speed import Speed


def sketch(*methods: str, **request: Any) -> plan.Plan:
    settings = {"protocol.image_size": 16, **request.pop("settings", {})}
    given = {"tasks": ["digits"], "device": "cpu", "settings": settings, **request}
    return plan.make(Request(methods=methods, **given), sketch=True)


def specs(*methods: str, **request: Any) -> list[RunSpec]:
    return sketch(*methods, **request).specs


# -- memory --------------------------------------------------------------------------------------


def test_an_answer_is_measured_once(tmp_path: Path) -> None:
    answers = itertools.count(1)
    for question in ({"what": "a"}, {"what": "b"}, {"what": "a"}):
        speed.remembered(question, lambda: next(answers))
    assert [speed.recall({"what": name}) for name in "abc"] == [1, 2, None]
    (file, _) = sorted((tmp_path / "cache" / "measured").iterdir())
    assert home.recall(file)["question"]["what"] in "ab"


def test_another_machine_is_another_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    speed.remember({"what": "a"}, 1)
    monkeypatch.setattr(experiment, "processor", lambda: "another one")
    assert speed.recall({"what": "a"}) is None


def test_a_damaged_answer_is_measured_again(tmp_path: Path) -> None:
    speed.remember({"what": "a"}, 1)
    for text in ("", "{}", "[]", "nonsense"):
        (file,) = (tmp_path / "cache" / "measured").iterdir()
        file.write_text(text)
        assert speed.remembered({"what": "a"}, lambda: 2) == 2
    assert speed.recall({"what": "a"}) == 2


def test_a_cache_that_cannot_be_written_costs_only_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PETLBENCH_CACHE", "/proc/none")
    assert speed.remembered({"what": "a"}, lambda: 3) == 3


# -- choices -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bf16", "fp32", "pays"), [(3.0, 1.0, True), (1.2, 1.0, False)])
def test_bf16_must_be_clearly_faster(
    monkeypatch: pytest.MonkeyPatch, bf16: float, fp32: float, pays: bool
) -> None:
    rates = {torch.bfloat16: bf16, torch.float32: fp32}
    monkeypatch.setattr(speed, "matrix_rate", lambda device, dtype, size: rates[dtype])
    assert speed.bf16_pays("cpu") is pays


@pytest.mark.parametrize(
    ("explicit", "fused", "choice"),
    [(1.0, 1.0, "explicit"), (1.0, 0.95, "explicit"), (1.0, 0.5, "fused"), (1.0, 2.0, "explicit")],
)
def test_the_faster_attention_is_chosen(
    monkeypatch: pytest.MonkeyPatch, explicit: float, fused: float, choice: str
) -> None:
    costs = iter((explicit, fused))
    monkeypatch.setattr(speed, "seconds_of", lambda call, device, at_least: next(costs))
    shape = sketch("linear").shape
    assert speed.attention(shape, 8, False, "cpu", 1) == choice
    assert speed.attention(shape, 8, False, "cpu", 1) == choice  # remembered


def test_both_attention_kernels_are_timms(monkeypatch: pytest.MonkeyPatch) -> None:
    q, k, v = (torch.randn(2, 3, 5, 4, dtype=torch.float64) for _ in range(3))
    explicit, fused = (kernel(q, k, v) for kernel in speed._ATTENTION.values())
    torch.testing.assert_close(explicit, fused, rtol=1e-12, atol=1e-12)


def test_measuring_leaves_the_threads_alone() -> None:
    before = torch.get_num_threads()
    shape = sketch("linear").shape
    assert speed.attention(shape, 2, False, "cpu", before + 1) in ("explicit", "fused")
    assert torch.get_num_threads() == before


def test_matrix_rate() -> None:
    assert 1e8 < speed.matrix_rate("cpu", torch.float32, 256) < 1e15


@pytest.mark.parametrize(("share", "runs"), [(0.6, 1), (0.21, 1), (0.2, 2), (0.1, 4), (0.001, 4)])
def test_a_run_that_leaves_the_gpu_idle_shares_it(
    monkeypatch: pytest.MonkeyPatch, share: float, runs: int
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "one")
    monkeypatch.setattr(speed, "measure_speed", lambda *_: Speed(0, 0, training=0.5, testing=1))
    monkeypatch.setattr(speed, "flops", lambda spec: (share * 0.5 * 1e12, 0.0))
    monkeypatch.setattr(speed, "matrix_rate", lambda *_: 1e12)
    assert speed.runs_per_gpu(specs("linear")[0]) == runs


# -- rates ---------------------------------------------------------------------------------------


def test_a_run_costs_its_parts() -> None:
    rate = Speed(setup=2.0, once=0.1, training=0.01, testing=0.001)
    expected = 2 + 1000 * 0.1 + 1000 * 100 * 0.01 + 5000 * 0.001
    assert rate.run(1000, 100, 5000) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["convpass", "linear"])
def test_a_method_is_measured_as_it_runs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.1)
    (spec,) = specs(name)
    found = speed.measure([spec], Machine())[name]
    assert 0 < found.setup < 60 and 1e-7 < found.training < 1 and 1e-6 < found.testing < 1
    assert (found.once > 0) is (name == "linear")
    assert speed.known([spec], Machine()) == {name: found}
    # another machine option, another method's setting, another size: not known
    assert not speed.known([spec], Machine(threads=7))
    if name == "convpass":
        assert not speed.known(specs(name, settings={"convpass.hidden": 9}), Machine())
    assert not speed.known(specs(name, settings={"protocol.image_size": 32}), Machine())


def test_workers_measure_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.1)
    found = speed.measure(specs("linear", "vpt"), Machine(jobs=2))
    assert found.keys() == {"linear", "vpt"}


def test_every_worker_is_kept_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers and two methods: four measurements, of which the last of each counts."""
    rates = itertools.count(1.0)
    monkeypatch.setattr(speed, "measure_speed", lambda *_: Speed(0, 0, next(rates), 0))
    monkeypatch.setattr(
        speed, "side_by_side", lambda calls, *_: [call(*given) for call, given in calls]
    )
    found = speed.measure(specs("linear", "vpt"), Machine(jobs=3))
    assert sorted(rate.training for rate in found.values()) == [3.0, 4.0]


def test_nothing_to_measure() -> None:
    assert speed.measure([], Machine(jobs=2)) == {}


def test_a_method_that_breaks_is_named(tmp_path: Path) -> None:
    (tmp_path / "breaks.py").write_text(
        "from dataclasses import dataclass\n"
        "from petlbench.method import Method\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Breaks(Method):\n"
        "    def attach(self, backbone):\n"
        '        raise ValueError("it breaks")\n\n'
        "    def num_trainable(self, shape):\n"
        "        return 0\n"
    )
    with pytest.raises(UsageError) as raised:
        speed.measure(specs("./breaks.py"), Machine())
    assert "breaks cannot be trained on vit_mini: ValueError: it breaks" in str(raised.value)
    assert "petlbench check" in str(raised.value)


def test_speed_from_records() -> None:
    def record(task: str, train: float, test: float, total: int) -> dict[str, Any]:
        return {
            "spec": {"task": task, "protocol": {"epochs": 10}},
            "setup_seconds": 0.5,
            "train_seconds": train,
            "test_seconds": test,
            "test": {"total": total},
        }

    records = [record("a", 10.0, 2.0, 200), record("b", 30.0, 4.0, 400)]
    found = speed.from_records(records, {"a": (100, 200), "b": (300, 400)})
    assert found == Speed(0.5, 0.0, pytest.approx(0.01), pytest.approx(0.01))


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=12), st.integers(1, 5))
def test_makespan(costs: list[float], workers: int) -> None:
    found = speed.makespan(costs, workers)
    assert max(max(costs), sum(costs) / workers) - 1e-9 <= found <= sum(costs) + 1e-9
    # greedy scheduling is never worse than this (Graham, 1966)
    assert found <= sum(costs) / workers + (1 - 1 / workers) * max(costs) + 1e-9
    if workers == 1:
        assert found == pytest.approx(sum(costs))


def test_flops_in_closed_form() -> None:
    """2 per multiply-add of every matrix product and convolution; linear: the head's alone."""
    (spec,) = specs("linear")
    shape = sketch("linear").shape
    training, testing = speed.flops(spec)
    block = shape.blocks[0]
    d, n, patches = block.dim, block.num_tokens, block.num_tokens - block.num_prefix_tokens
    linears = 2 * n * sum(inputs * outputs for inputs, outputs in block.linears.values())
    products = 2 * 2 * n * n * d  # q k^T and the weighted sum of v
    embedding = 2 * patches * d * 3 * shape.patch_size[0] * shape.patch_size[1]
    head = 2 * d * spec.classes
    assert testing == len(shape.blocks) * (linears + products) + embedding + head
    assert training == 2 * head  # forward, and the gradient of its weight


def test_full_costs_three_forward_passes() -> None:
    (spec,) = specs("full")
    training, testing = speed.flops(spec)
    assert 2.9 * testing < training <= 3 * testing


def test_startup_is_seconds() -> None:
    assert 0.1 < speed.startup() < 120


def test_measuring_needs_no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """On random weights, whatever the spec's own are."""
    built: list[str] = []
    build = weights.build

    def watch(spec: weights.BackboneSpec, *arguments: Any) -> Any:
        built.append(spec.checkpoint)
        return build(spec, *arguments)

    monkeypatch.setattr(weights, "build", watch)
    monkeypatch.setattr(speed, "SECONDS", 0.05)
    (spec,) = specs("linear")
    speed.measure_speed(spec, Machine())
    assert set(built) == {"random"}
    assert method.specify("linear") == spec.method


@pytest.mark.parametrize("method", ["lora", "convpass"])
def test_latency_is_that_of_the_model_in_use(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Merged where the method merges: then both models have the same modules, and no more."""
    seen: list[set[str]] = []

    def spy(model: Any, *_: Any) -> Any:
        seen.append({name for name, _ in model.named_parameters()})

    monkeypatch.setattr(speed, "predict", spy)
    monkeypatch.setattr(speed, "SECONDS", 0.01)
    (spec,) = specs(method)
    assert speed.latency(spec, Machine()) > 0
    assert (seen[0] == seen[1]) == (method == "lora")
    assert len(seen) >= 4
