"""What only a GPU can show: each run against the same run on the CPU, and what must not wait."""

from __future__ import annotations

import gc
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import petlbench
from petlbench import api, experiment, method, plan
from petlbench.backbone import Backbone
from petlbench.data.normalise import Normalise
from petlbench.errors import RunError
from petlbench.evaluate import outputs
from petlbench.experiment import Machine, measure
from petlbench.problems import classification
from petlbench.problems._feed import feed
from petlbench.problems.classification import CrossEntropy
from petlbench.replay import Replay
from petlbench.request import Request
from petlbench.spec import RunSpec
from petlbench.train import train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

CPU, GPU = Machine(keep="predictions"), Machine("cuda", keep="predictions", attention="fused")


def undisturbed(name: str) -> dict[str, Any]:
    """A method that draws no random numbers in training: those of two devices differ."""
    names = {field.name for field in fields(method.load(name))}
    return {"name": name} | {n: 0.0 for n in ("dropout", "drop_path") if n in names}


def spec_of(small: dict[str, Any], name: str, **rules: Any) -> RunSpec:
    rules = {"drop_path": 0.0, **rules}
    settings = small["settings"] | {f"protocol.{key}": value for key, value in rules.items()}
    request = small | {"methods": [undisturbed(name)], "settings": settings}
    return plan.make(Request(**request)).specs[0]


def outcome(spec: RunSpec, machine: Machine) -> tuple[list[float], NDArray[np.int32]]:
    """The loss of every epoch, and the predictions."""
    measured, artifacts = measure(spec, machine, lambda _: None)
    with np.load(io.BytesIO(artifacts[".predictions.npz"])) as stored:
        return measured["train_loss"], stored["predictions"]


def alike(spec: RunSpec, one: Machine, other: Machine, tolerance: float = 1e-3) -> None:
    (loss, predictions), (other_loss, others) = outcome(spec, one), outcome(spec, other)
    assert other_loss == pytest.approx(loss, rel=tolerance)
    assert (predictions == others).mean() >= 0.98


@pytest.mark.parametrize("name", [n for n in method.builtin() if n != "zero_shot"])
def test_every_method_trains_as_on_the_cpu(small: dict[str, Any], name: str) -> None:
    alike(spec_of(small, name), CPU, GPU)


@pytest.mark.parametrize("rules", [{"precision": "bf16"}, {"epochs": 5, "label_smoothing": 0.1}])
def test_a_run_is_that_of_the_cpu(small: dict[str, Any], rules: dict[str, Any]) -> None:
    tolerance = 0.02 if rules.get("precision") == "bf16" else 1e-3
    alike(spec_of(small, "convpass", **rules), CPU, GPU, tolerance)


@pytest.mark.parametrize("workers", [0, 2])
def test_augmented_images_are_those_of_the_cpu(small: dict[str, Any], workers: int) -> None:
    rules = {"augmentation": "crop-flip", "resize_to": 20, "mixup": 0.2}
    alike(spec_of(small, "lora", **rules), CPU, replace(GPU, workers=workers))


def test_recomputing_is_the_same_on_a_gpu(small: dict[str, Any]) -> None:
    spec = spec_of(small, "convpass", drop_path=0.2)
    alike(spec, GPU, replace(GPU, recompute=True), 1e-4)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="one GPU here")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_run_on_two_gpus_is_that_of_one(small: dict[str, Any], compiled: bool) -> None:
    """Batches of 63: one GPU has a smaller share than the other."""
    spec = spec_of(small, "full", epochs=2, batch_size=63, drop_last=False)
    alike(spec, GPU, replace(GPU, devices_per_run=2, compile=compiled))


def test_compiled_blocks_train_alike(small: dict[str, Any]) -> None:
    spec = spec_of(small, "convpass", epochs=2)
    alike(spec, GPU, replace(GPU, compile=True))


WAITING = ("bi_adaptformer", "bi_lora")  # their steps look at values


@pytest.fixture
def replay(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Called, it makes training steps replayed, of models that are not compiled."""
    prepare = experiment.prepare

    def replaying(*arguments: Any, **options: Any) -> Backbone:
        model = prepare(*arguments, **options)
        model.replay = True
        return model

    return lambda: monkeypatch.setattr(experiment, "prepare", replaying)


@pytest.mark.parametrize("name", [n for n in method.builtin() if n not in ("zero_shot", *WAITING)])
def test_replayed_steps_are_the_steps(
    small: dict[str, Any], replay: Callable[[], None], name: str
) -> None:
    """Batches of 64 of 400 images: the last is smaller, and runs as it is."""
    spec = spec_of(small, name, epochs=2, batch_size=64, drop_last=False)
    loss, predictions = outcome(spec, GPU)
    replay()
    again, others = outcome(spec, GPU)
    assert again == pytest.approx(loss, rel=1e-3)
    assert (predictions == others).mean() >= 0.98


@pytest.mark.parametrize("name", WAITING)
def test_a_method_that_waits_is_told(
    small: dict[str, Any], replay: Callable[[], None], name: str
) -> None:
    replay()
    with pytest.raises(RunError, match="run this method without --compile"):
        outcome(spec_of(small, name), GPU)


def test_a_replay_draws_new_random_numbers(
    small: dict[str, Any], replay: Callable[[], None]
) -> None:
    """The very ones that the steps would have drawn."""
    settings = {"drop_path": 0.3, "epochs": 3}
    spec = spec_of(small, "lora", **settings)
    loss, _ = outcome(spec, GPU)
    replay()
    again, _ = outcome(spec, GPU)
    assert again == pytest.approx(loss, rel=1e-3)


def test_a_step_that_waits_is_refused() -> None:
    def step(x: Tensor) -> Tensor:
        return x * x.sum().item()

    replay, x = Replay([]), torch.ones(2, device="cuda")
    assert replay(step, x).tolist() == [2.0, 2.0]  # compiling may wait
    with pytest.raises(RunError, match="run this method without --compile"):
        replay(step, x)
    assert torch.rand(2, device="cuda").sum().item() > 0  # the device is still of use


def test_runs_share_a_gpu(small: dict[str, Any]) -> None:
    changes = {"device": "cuda", "jobs": 2, "methods": ["linear", "lora"], "attention": "fused"}
    petlbench.run(**small | changes)
    records, _ = api.finished(small["results"])
    assert [r["error"] for r in records if "error" in r] == [] and len(records) == 2
    for record in records:
        assert record["status"] == "done" and record["environment"]["device"] == "cuda:0"
        assert record["environment"]["gpu"] == torch.cuda.get_device_name()
        assert record["peak_bytes"] > 0


@contextmanager
def no_waiting() -> Iterator[None]:
    """Within it, waiting for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["convpass", "lora", "vpt", "full", "linear"])
def test_nothing_waits_within_an_epoch(small: dict[str, Any], name: str) -> None:
    """Three steps of gather, normalise, forward, backward and all but the last update."""
    spec = spec_of(small, name, drop_path=0.1, precision="bf16")
    model, rules = experiment.prepare(spec, GPU), spec.rules
    data = classification.imaginary(spec, 3 * rules["batch_size"])
    labels = torch.from_numpy(data.images.labels).cuda()
    inputs, start = feed(model, data, rules, 0)
    forward = lambda x: model(x, start)  # noqa: E731
    gradients = CrossEntropy(model, forward, inputs, labels, rules, 0)
    steps = []

    def watched(epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        of_epoch = gradients(epoch, batches)
        with no_waiting():
            for _ in batches[:-1]:
                yield next(of_epoch)
            last = next(of_epoch)
        steps.append(len(batches))
        yield last

    train(model, watched, len(labels), rules | {"epochs": 2, "warmup_epochs": 1}, 0)
    assert steps == [3, 3]


def test_a_test_pass_waits_once(small: dict[str, Any]) -> None:
    spec = spec_of(small, "convpass")
    model = experiment.prepare(spec, GPU).eval()
    normalise = Normalise(spec.rules["mean"], spec.rules["std"], torch.device("cuda"))
    pixels = torch.from_numpy(classification.imaginary(spec, 2100).images.pixels)
    with no_waiting():
        found = outputs(lambda images: model(normalise(images)), pixels, normalise.device)
    with torch.inference_mode():
        expected = model(normalise(pixels[-50:]))
    torch.testing.assert_close(found[-50:], expected, rtol=1e-4, atol=1e-4)


@contextmanager
def memory_of(allowed: float) -> Iterator[None]:
    """Within it, this process may allocate that many bytes."""
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(allowed / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_a_full_device_takes_batches_in_parts(small: dict[str, Any]) -> None:
    settings = {"image_size": 48, "batch_size": 512, "epochs": 2, "drop_last": False}
    spec = spec_of(small | {"checkpoint": "random"}, "lora", **settings)
    data = classification.imaginary(spec, 1024)

    def fitted() -> tuple[Any, Tensor]:
        model = experiment.prepare(spec, GPU)
        torch.cuda.reset_peak_memory_stats()
        found = classification.fit(model, data, spec.rules, 0)
        peaks.append(torch.cuda.max_memory_allocated())
        return found, classification.outputs(model, data, spec.rules)

    peaks: list[int] = []
    whole, logits = fitted()
    with memory_of(0.6 * peaks[0]):
        parts, others = fitted()
    assert whole.micro_batches == 1 < parts.micro_batches
    assert parts.loss == pytest.approx(whole.loss, rel=1e-4)
    torch.testing.assert_close(others, logits, rtol=1e-2, atol=1e-2)


def test_a_run_that_does_not_fit_fails_and_says_what_helps(small: dict[str, Any]) -> None:
    request = Request(**small | {"device": "cuda", "methods": ["lora"]})
    made = plan.make(request)
    with memory_of(2**20):  # not even the backbone
        assert api.execute(made, progress=False).failed == 1
    (failure,), _ = made.store.load()
    assert failure["error"]["type"] == "OutOfMemoryError"
    assert failure["error"]["message"].startswith("out of memory (CUDA out of memory")
    assert "--recompute" in failure["error"]["message"]
    assert api.execute(plan.make(request), progress=False).failed == 0
