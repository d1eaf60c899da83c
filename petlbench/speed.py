"""How fast this machine is: measured in a second or two, and remembered per machine.

Answers lie in the cache folder under the machine (processor or GPU, cores, PyTorch) and the
question, so that a choice that decides the last bits of a number stays the same from run to run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from petlbench import __version__, adapted, experiment, home, method, problems, weights
from petlbench.apart import side_by_side
from petlbench.backbone import Shape
from petlbench.data.normalise import Normalise
from petlbench.errors import UsageError
from petlbench.evaluate import DEVICE_BATCH, predict
from petlbench.experiment import Machine
from petlbench.spec import RunSpec
from petlbench.store import Record

SECONDS = 1.0  # how long each rate is measured


@dataclass(frozen=True)
class Speed:
    """What the parts of a run cost, in seconds."""

    setup: float  # build the model and attach the method
    once: float  # per training image, before the first epoch: what is frozen in front
    training: float  # per training image and epoch
    testing: float  # per test image

    def run(self, training_images: int, epochs: int, test_images: int) -> float:
        """Seconds of one run."""
        each = self.once + epochs * self.training
        return self.setup + training_images * each + test_images * self.testing


Question = dict[str, Any]


def remembered(question: Question, measure: Callable[[], Any]) -> Any:
    """The stored answer to `question` on this machine (plain JSON), or `measure()`, then stored."""
    answer = recall(question)
    if answer is None:
        answer = measure()
        remember(question, answer)
    return answer


def recall(question: Question) -> Any:
    told = home.recall(_file(question))
    return told["answer"] if told else None


def remember(question: Question, answer: Any) -> None:
    with contextlib.suppress(OSError):  # a full disk costs a second next time, and no run
        home.remember(_file(question), {"question": question, "answer": answer})


def _file(question: Question) -> Path:
    whole = {**question, "machine": _hardware(str(question.get("device", "cpu")))}
    name = hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:24]
    return home.cache_folder() / "measured" / f"{name}.json"


def _hardware(device: str) -> dict[str, Any]:
    return {
        "processor": experiment.processor(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.startswith("cuda") else None,
        "torch": torch.__version__,
        "petlbench": __version__,
    }


# -- choices -------------------------------------------------------------------------------------


def matrix_rate(device: str, dtype: torch.dtype, size: int = 2048) -> float:
    """FLOP/s of a large matrix product: what the hardware gives at best."""
    a = torch.randn(size, size, dtype=dtype, device=device)  # equal numbers take less power
    return 2 * size**3 / seconds_of(lambda: a @ a, device, at_least=0.1)


def bf16_pays(device: str) -> bool:
    """Whether bf16 matrix products are clearly faster than fp32 ones."""

    def measure() -> bool:
        size = 1024 if device == "cpu" else 4096
        bf16, fp32 = (matrix_rate(device, t, size) for t in (torch.bfloat16, torch.float32))
        return bf16 > 1.3 * fp32

    return bool(remembered({"what": "bf16 pays", "device": device}, measure))


def attention(shape: Shape, batch: int, bf16: bool, device: str, threads: int) -> str:
    """The faster attention kernel, forward and backward: "explicit" or "fused".

    On a CPU the backward pass of the fused kernel is often the slower one. The usual choice
    stands unless the other is at least 10% faster.
    """
    if not shape.blocks or shape.blocks[0].windowed:
        return "explicit"  # windows are attended to explicitly
    block = shape.blocks[0]
    size = (batch, block.num_heads, block.num_tokens, block.dim // block.num_heads)
    question = {"what": "attention", "device": device, "threads": threads, "bf16": bf16}

    def measure() -> str:
        dtype = torch.bfloat16 if bf16 else torch.float32
        q, k, v = (torch.randn(size, dtype=dtype, device=device) for _ in range(3))
        for tensor in (q, k, v):
            tensor.requires_grad_(True)
        with _threads(threads):
            cost = {
                name: seconds_of(partial(_step, kernel, q, k, v), device, at_least=0.1)
                for name, kernel in _ATTENTION.items()
            }
        usual, other = ("explicit", "fused") if device == "cpu" else ("fused", "explicit")
        return other if cost[other] < 0.9 * cost[usual] else usual

    return str(remembered(question | {"shape": size}, measure))


def _explicit(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    scores: Tensor = q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)
    return scores.softmax(dim=-1) @ v


_ATTENTION: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "explicit": _explicit,
    "fused": torch.nn.functional.scaled_dot_product_attention,
}


def _step(kernel: Callable[..., Tensor], *inputs: Tensor) -> None:
    kernel(*inputs).sum().backward()  # type: ignore[no-untyped-call]


def runs_per_gpu(spec: RunSpec, compiled: bool = False) -> int:
    """How many runs like `spec` share a GPU: one if it computes at a fifth of its peak or more.

    Decided on convpass, whatever the methods: a choice must not depend on a method that breaks.
    """
    spec = replace(spec, method=method.specify("convpass"))
    machine = Machine("cuda", attention="fused", compile=compiled)

    def measure() -> int:
        rate = measure_speed(spec, machine)
        dtype = torch.bfloat16 if spec.rules["precision"] == "bf16" else torch.float32
        share = flops(spec)[0] / rate.training / matrix_rate("cuda", dtype, 8192)
        return max(1, min(4, int(0.4 / share)))

    question = _question(spec, machine)
    return int(remembered(question | {"what": "runs per gpu"}, measure))


# -- rates ---------------------------------------------------------------------------------------


def known(specs: Iterable[RunSpec], machine: Machine) -> dict[str, Speed]:
    """Method label -> its speed with `machine.jobs` runs side by side, as far as remembered."""
    one = {s.method.label: s for s in specs}
    answers = {label: recall(_question(spec, machine)) for label, spec in one.items()}
    return {label: Speed(**answer) for label, answer in answers.items() if answer}


def measure(specs: Iterable[RunSpec], machine: Machine) -> dict[str, Speed]:
    """Measure and remember the speed of each method, on the first of its specs.

    Raises UsageError naming a method that cannot be trained.
    """
    first: dict[str, RunSpec] = {}
    for spec in specs:
        first.setdefault(spec.method.label, spec)
    if not first:
        return {}
    devices = torch.cuda.device_count() if machine.device == "cuda" else 1
    jobs = -(-machine.jobs // devices)  # runs that share one device
    # every worker is kept busy, as it will be in the sweep
    calls = [(_try, (spec, machine)) for spec in first.values()] * -(-jobs // len(first))
    if jobs == 1:
        measured = [call(*arguments) for call, arguments in calls]
    else:
        measured = list(side_by_side(calls, jobs, machine.threads))
    found = {}
    for label, speed in measured:
        spec = first[label]
        if isinstance(speed, str):
            raise UsageError(
                f"{label} cannot be trained on {spec.backbone.name}: {speed}\n"
                f"See: petlbench check {spec.method.reference}"
            )
        remember(_question(spec, machine), asdict(speed))
        found[label] = speed
    return found


def _try(spec: RunSpec, machine: Machine) -> tuple[str, Speed | str]:
    """The method's speed, or the error in one line: not every exception can leave a worker."""
    try:
        return spec.method.label, measure_speed(spec, machine)
    except Exception as error:
        return spec.method.label, f"{type(error).__name__}: {error}"


def _question(spec: RunSpec, machine: Machine) -> dict[str, Any]:
    rules = ("image_size", "batch_size", "drop_path", "precision", "towers", "head", "augmentation")
    return {
        "what": "speed",
        "device": machine.device,
        "machine options": [machine.threads, machine.jobs, machine.attention],
        "memory options": [machine.recompute, machine.compile],
        "backbone": spec.backbone.name,
        "method": [spec.method.name, spec.method.source, spec.method.config],
        "problem": spec.problem,
        "rules": {name: spec.rules[name] for name in rules if name in spec.rules},
    }


def measure_speed(spec: RunSpec, machine: Machine) -> Speed:
    """Train and test on random images for a second or so, through the code that a run uses."""
    spec = replace(spec, backbone=weights.BackboneSpec(spec.backbone.name, weights.RANDOM))
    with _threads(machine.threads):
        begin = time.perf_counter()
        model = experiment.prepare(spec, machine)
        setup = time.perf_counter() - begin
        problem = problems.load(spec.problem)

        # a GPU works while the host goes on: steps and batches in a row, as in a run
        on_cpu = machine.device == "cpu"
        steps = 1 if on_cpu else 8

        def test(images: int) -> float:
            images = images if on_cpu else 4 * DEVICE_BATCH
            data = problem.imaginary(spec, images)
            call = partial(problem.outputs, model, data, spec.rules)
            return seconds_of(call, machine.device, 0.3) / images

        if not any(p.requires_grad for p in model.parameters()):
            return Speed(setup, 0.0, 0.0, test(spec.rules["batch_size"]))

        def fit(images: int, epochs: int) -> float:
            rules = {"epochs": epochs, "warmup_epochs": 0, "batch_size": images}
            # the smallest rates: random images must teach nothing that overflows
            rates = {"learning_rate": 1e-9, "min_learning_rate": 0.0}
            data = problem.imaginary(spec, steps * images)
            begin = time.perf_counter()
            problem.fit(model, data, {**spec.rules, **rules, **rates}, spec.seed)
            return time.perf_counter() - begin

        batch = spec.rules["batch_size"]
        images = min(4, batch) if on_cpu else batch
        fit(images, 1)  # compiles, allocates
        while images < batch and fit(images, 1) < SECONDS / 8:
            images = min(2 * images, batch)
        single, epochs = min(fit(images, 1) for _ in range(2)), 1
        while (longer := fit(images, 1 + epochs)) - single < SECONDS / 2:
            epochs *= 2 if longer - single > SECONDS / 8 else 4
        # other work on the machine only ever adds time
        longer = min(longer, *(fit(images, 1 + epochs) for _ in range(2)))
        training = max(longer - single, 1e-9) / (epochs * steps * images)
        testing = test(images)
        augmented = spec.rules["augmentation"] != "none"
        frozen = model.frozen_stages() > 1 and not augmented
    return Speed(setup, testing if frozen else 0.0, training, testing)


def from_records(records: Iterable[Record], sizes: dict[str, tuple[int, int]]) -> Speed:
    """The mean speed of finished runs."""
    records = list(records)
    images = sum(
        record["spec"]["protocol"]["epochs"] * sizes[record["spec"]["task"]][0]
        for record in records
    )
    tested = sum(record["test"]["total"] for record in records)
    return Speed(
        setup=sum(record.get("setup_seconds", 0.0) for record in records) / len(records),
        once=0.0,
        training=sum(record["train_seconds"] for record in records) / images,
        testing=sum(record["test_seconds"] for record in records) / tested,
    )


def makespan(costs: Iterable[float], workers: int) -> float:
    """Seconds until the last of `workers` is free when each takes the next run in order."""
    free = [0.0] * workers
    for cost in costs:
        free[free.index(min(free))] += cost
    return max(free)


def startup() -> float:
    """Seconds that a worker process takes before its first run: the imports."""

    def measure() -> float:
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import petlbench.experiment"], check=True)
        return time.perf_counter() - begin

    return float(remembered({"what": "startup"}, measure))


def flops(spec: RunSpec) -> tuple[float, float]:
    """FLOPs (2 per multiply-add) per image: of a training step, and of a prediction.

    Counted by PyTorch over the second of two epochs on two images (of retrieval: with a caption
    each), matrix products and convolutions only; what autograd does not compute is not counted.
    """
    from torch.utils.flop_counter import FlopCounterMode

    spec = replace(spec, backbone=weights.BackboneSpec(spec.backbone.name, weights.RANDOM))
    changes = {"precision": "fp32", "warmup_epochs": 0, "batch_size": 2, "learning_rate": 1e-9}
    spec = replace(spec, rules={**spec.rules, **changes})
    problem, model = problems.load(spec.problem), experiment.prepare(spec, Machine("cpu"))
    data = problem.imaginary(spec, 2)

    def count(call: Callable[[], Any]) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        return float(counter.get_total_flops())

    def fit(epochs: int) -> float:
        rules = {**spec.rules, "epochs": epochs}
        return count(lambda: problem.fit(model, data, rules, spec.seed))

    trains = any(p.requires_grad for p in model.parameters())
    training = fit(2) - fit(1) if trains else 0.0
    model.requires_grad_(False)  # the counter asks what trains for a gradient, and there is none
    return training / 2, count(lambda: problem.outputs(model, data, spec.rules)) / 2


def latency(spec: RunSpec, machine: Machine) -> float:
    """Time of the model as it is used, over that of the backbone alone: one image at a time.

    Merged, where the method merges. Both take turns, and the fastest of each counts.
    """
    spec = replace(spec, backbone=weights.BackboneSpec(spec.backbone.name, weights.RANDOM))
    rules, bf16 = spec.rules, spec.rules["precision"] == "bf16"
    built, device = spec.method.build(), torch.device(machine.device)
    whole = replace(spec, rules={**rules, "precision": "fp32"})  # merging rounds once
    models = [experiment.prepare(whole, machine, adapt) for adapt in (False, True)]
    if built.merges:
        with torch.no_grad():
            built.merge(models[1])
    image = torch.zeros(1, 3, rules["image_size"], rules["image_size"], dtype=torch.uint8)
    normalise = Normalise(rules["mean"], rules["std"], device)
    best = [float("inf")] * len(models)
    with _threads(machine.threads):
        for model in models:
            if bf16:
                model.requires_grad_(False).store_frozen(torch.bfloat16)
            predict(model, image, normalise, bf16)
        begin = time.perf_counter()
        while time.perf_counter() - begin < SECONDS:
            for i, model in enumerate(models):
                once = partial(predict, model, image, normalise, bf16)
                best[i] = min(best[i], _seconds(once, machine.device))
    return best[1] / best[0]


def added_latency(record: Mapping[str, Any]) -> float:
    """What a finished run's model adds to the backbone's latency here, in %; 0 if it merges.

    One image at a time on one core of the CPU. Raises UsageError for a method that is not there.
    """
    spec = adapted.untrained(record)
    if spec.method.build().merges:
        return 0.0
    question = {
        "what": "latency",
        "method": {name: record["spec"]["method"][name] for name in ("name", "source", "config")},
        "backbone": spec.backbone.name,
        **{name: spec.rules[name] for name in ("image_size", "precision")},
    }
    ratio = float(remembered(question, partial(latency, spec, Machine())))
    return max(100 * (ratio - 1), 0.0)


def _seconds(call: Callable[[], Any], device: str) -> float:
    begin = time.perf_counter()
    synchronise(device, call)
    return time.perf_counter() - begin


def seconds_of(call: Callable[[], Any], device: str, at_least: float) -> float:
    """Seconds of one call: the fastest of several, measured for `at_least` seconds in all."""
    synchronise(device, call)
    times: list[float] = []
    while len(times) < 3 or sum(times) < at_least:
        times.append(_seconds(call, device))
    return min(times)


def synchronise(device: str, call: Callable[[], Any]) -> None:
    call()
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def _threads(number: int) -> Iterator[None]:
    """Measure with that many threads, and leave the process as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
