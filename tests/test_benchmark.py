"""A machine's own numbers, from measured speeds and counted FLOPs."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import CLI

from petlbench import benchmark, plan, speed
from petlbench.request import Request
from petlbench.speed import Speed

RATE = Speed(setup=1.0, once=0.0, training=0.002, testing=0.0005)


@pytest.fixture(autouse=True)
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every method is as fast as RATE; returns the labels that were measured."""
    labels: list[str] = []

    def measure(spec: Any, machine: Any) -> Speed:
        labels.append(spec.method.label)
        return RATE

    monkeypatch.setattr(speed, "measure_speed", measure)
    monkeypatch.setattr(speed, "matrix_rate", lambda *_: 1e12)
    monkeypatch.setattr(speed, "attention", lambda *_: "explicit")
    monkeypatch.setattr(speed, "latency", lambda *_: 1.25)
    # no other processes
    monkeypatch.setattr(
        speed, "side_by_side", lambda calls, *_: [call(*given) for call, given in calls]
    )
    return labels


def sketch(**request: Any) -> plan.Plan:
    return plan.make(Request(**{"device": "cpu", "jobs": 1} | request), sketch=True)


def test_rows_follow_from_speeds_and_flops(measured: list[str]) -> None:
    made = sketch(methods=["lora", "linear"], seeds=3)
    found = benchmark.measure(made)
    assert [row.method for row in found.rows] == measured == ["lora", "linear"]
    row = found.rows[0]
    assert (row.training, row.testing) == (pytest.approx(500), pytest.approx(2000))
    training, testing = speed.flops(made.specs[0])
    assert row.training_flops == pytest.approx(500 * training)
    assert row.testing_flops == pytest.approx(2000 * testing)
    assert row.cells()[7] == "1.25 x (merged)"
    assert row.cells()[4] == f"{500 * training / 1e12:.0%}"
    # 5 tasks x 3 seeds, 400 training images in 10 epochs, 500 test images
    assert row.seconds == pytest.approx(15 * (1 + 400 * 10 * 0.002 + 500 * 0.0005))
    assert "5 tasks, 3 seeds" in found.subject[0] and "fp32" in found.subject[1]


def test_known_speeds_are_not_measured_again(measured: list[str]) -> None:
    benchmark.measure(sketch(methods=["linear"]))
    benchmark.measure(sketch(methods=["linear", "lora"]))
    assert measured == ["linear", "lora"]
    benchmark.measure(sketch(methods=["linear"]), fresh=True)
    assert measured == ["linear", "lora", "linear"]


def test_two_workers_are_twice_as_fast() -> None:
    request = {"methods": ["linear"], "threads": 1}
    one, two = (benchmark.measure(sketch(**request, jobs=jobs)) for jobs in (1, 2))
    assert two.rows[0].training == pytest.approx(2 * one.rows[0].training)
    assert two.rows[0].seconds == pytest.approx(one.rows[0].seconds * 3 / 5)  # 5 runs: 3 and 2


def test_the_command_needs_neither_data_nor_weights(cli: CLI) -> None:
    outcome = cli(
        "benchmark", "--suite", "vtab-1k", "--methods", "linear", "--device", "cpu", "--jobs", "1",
        "--backbone", "vit_tiny_patch16_224", "--image-size", "32",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "vtab-1k: 19 tasks, 3 seeds, 100 epochs; vit_tiny_patch16_224, 32 px" in outcome.out
    assert "linear" in outcome.out and " 1,000 " in outcome.out


def test_a_wrong_suite_is_refused(cli: CLI) -> None:
    cli("benchmark", "--suite", "vtab").refused("unknown suite 'vtab'", "vtab-1k")


def test_a_wrong_kernel_is_refused(cli: CLI) -> None:
    cli("benchmark", "--attention", "flash").refused("attention = 'flash'", "explicit", "fused")


@pytest.mark.parametrize(
    ("value", "text"), [(1234.5, "1,234"), (99.95, "100"), (3.14159, "3.14"), (0.00123, "0.00123")]
)
def test_three_digits(value: float, text: str) -> None:
    assert benchmark._three(value) in (text, text.replace("1,234", "1,235"))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (7200, "2.0 h")]
)
def test_duration(seconds: float, text: str) -> None:
    assert benchmark.duration(seconds) == text
