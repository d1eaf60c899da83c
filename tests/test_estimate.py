"""What a plan costs in time is known once it is measured, and tells starts of workers."""

from __future__ import annotations

from typing import Any

import pytest

from petlbench import estimate, plan, speed
from petlbench.experiment import Machine
from petlbench.request import Request


def make(**request: Any) -> plan.Plan:
    settings = {"protocol.image_size": 16}
    return plan.make(Request(checkpoint="random", device="cpu", settings=settings, **request))


def test_time_is_unknown_until_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measure(spec: Any, machine: Machine) -> speed.Speed:
        asked.append(spec.method.label)
        return speed.Speed(setup=1.0, once=0.01, training=0.001, testing=0.0001)

    monkeypatch.setattr(speed, "measure_speed", measure)
    monkeypatch.setattr(speed, "startup", lambda: 5.0)
    request = {"tasks": ["digits", "scene_count"], "methods": ["linear", "lora"], "jobs": 1}
    made = make(**request)
    assert estimate.wall_seconds(made) == (None, "")
    seconds, source = estimate.wall_seconds(made, measure=True)
    # 400 training images once and in 10 epochs, 500 test images
    assert seconds == pytest.approx(5 + 4 * (1 + 400 * (0.01 + 10 * 0.001) + 500 * 0.0001))
    assert source == "speeds measured on this machine"
    assert asked == ["linear", "lora"]
    assert estimate.wall_seconds(make(**request)) == (seconds, source)  # remembered
    assert asked == ["linear", "lora"]
    estimate.wall_seconds(make(**request), measure=True, fresh=True)
    assert asked == ["linear", "lora"] * 2


def test_the_start_of_workers_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "startup", lambda: 5.0)
    monkeypatch.setattr(speed, "known", lambda *_: {"linear": speed.Speed(1.0, 0, 0, 0)})
    request = {"tasks": ["digits"], "methods": ["linear"], "seeds": 4}
    assert estimate.wall_seconds(make(**request, jobs=1))[0] == pytest.approx(5 + 4)
    assert estimate.wall_seconds(make(**request, jobs=2))[0] == pytest.approx(2 * 5 + 2)
