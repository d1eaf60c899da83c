"""A machine's own numbers: images per second of each method, and the hours of a suite."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from petlbench import estimate, speed
from petlbench.errors import UsageError
from petlbench.plan import Plan
from petlbench.progress import duration as duration
from petlbench.wording import count

COLUMNS = (
    "method",
    "training images/s",
    "test images/s",
    "training GFLOP/s",
    "share of peak",
    "test GFLOP/s",
    "share of peak",
    "latency",
    "time for all",
)
EXPLAINED = (
    "images/s of all runs side by side (linear trains on features that are computed once); peak: "
    "the large matrix product; latency: one image through the adapted model (merged, where the "
    "method merges) over one through the backbone alone; time: every task and seed, one method"
)


@dataclass(frozen=True)
class Row:
    """One method; rates are those of the whole machine, FLOPs 2 per multiply-add."""

    method: str
    training: float  # images (of retrieval: captions) per second and epoch; 0: nothing trains
    testing: float  # images per second
    training_flops: float  # per second
    testing_flops: float
    peak: float  # FLOP/s of a large matrix product
    latency: float  # of a prediction, over that of the backbone alone
    merges: bool
    seconds: float  # all runs of the plan

    def cells(self) -> list[str]:
        return [
            self.method,
            _three(self.training) if self.training else "–",
            _three(self.testing),
            _three(self.training_flops / 1e9) if self.training else "–",
            f"{self.training_flops / self.peak:.0%}" if self.training else "–",
            _three(self.testing_flops / 1e9),
            f"{self.testing_flops / self.peak:.0%}",
            f"{self.latency:.2f} x{' (merged)' if self.merges else ''}",
            duration(self.seconds),
        ]


@dataclass(frozen=True)
class Benchmark:
    subject: list[str]
    rows: list[Row]


def measure(plan: Plan, fresh: bool = False) -> Benchmark:
    """Measure every method of `plan` (a sketch will do) as a sweep would run it."""
    first, machine = plan.specs[0], plan.machine
    if machine.devices_per_run > 1:
        raise UsageError("benchmark measures runs on one device each; leave out --devices-per-run.")
    bf16 = first.rules["precision"] == "bf16"
    size = 2048 if machine.device == "cpu" else 8192
    peak = speed.matrix_rate(machine.device, torch.bfloat16 if bf16 else torch.float32, size)
    if machine.device == "cuda":
        peak *= torch.cuda.device_count()
    rates = {} if fresh else speed.known(plan.specs, machine)
    rates |= speed.measure([s for s in plan.specs if s.method.label not in rates], machine)
    rows = []
    for label in dict.fromkeys(spec.method.label for spec in plan.specs):
        rate, specs = rates[label], [spec for spec in plan.specs if spec.method.label == label]
        costs = [estimate.seconds(plan, spec, rate) for spec in specs]
        training_flops, testing_flops = speed.flops(specs[0])
        training = machine.jobs / rate.training if rate.training else 0.0
        testing = machine.jobs / rate.testing
        rows.append(
            Row(
                label,
                training,
                testing,
                training * training_flops,
                testing * testing_flops,
                peak,
                speed.latency(specs[0], machine),
                specs[0].method.build().merges,
                speed.makespan(costs, machine.jobs),
            )
        )
    tasks = len({spec.task for spec in plan.specs})
    seeds = len({spec.seed for spec in plan.specs})
    gpu = f", {torch.cuda.get_device_name()}" if machine.device == "cuda" else ""
    subject = [
        f"{first.suite}: {count(tasks, 'task')}, {count(seeds, 'seed')}, "
        f"{count(first.rules['epochs'], 'epoch')}; {first.backbone.name}, "
        f"{first.rules['image_size']} px, batch {first.rules['batch_size']}",
        f"{manner(plan)}{gpu}; a large matrix product: {_three(peak / 1e9)} GFLOP/s",
    ]
    return Benchmark(subject, rows)


def manner(plan: Plan) -> str:
    """How the runs of a plan are executed, in words."""
    machine = plan.machine
    extras = [name for name in ("recompute", "compile") if getattr(machine, name)]
    ranks = machine.devices_per_run
    shared = [f"on {ranks} devices"] if ranks > 1 else []
    return ", ".join(
        [
            f"device {machine.device}",
            str(plan.specs[0].rules["precision"]),
            f"{machine.attention} attention",
            *extras,
            f"{count(machine.jobs, 'run')} at a time",
            *shared,
            f"{count(machine.threads, 'thread')} each",
        ]
    )


def _three(value: float) -> str:
    """Three significant digits, without an exponent."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
