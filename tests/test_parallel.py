"""A run on several devices is that of one: shares, gradients, whole runs, and what dies in them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLI
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load
from torch import Tensor, nn

import petlbench
from petlbench import benchmark, estimate, execute, experiment, method, parallel, plan, protocol
from petlbench.data.augment import mix
from petlbench.data.normalise import Normalise
from petlbench.errors import RunError, UsageError
from petlbench.evaluate import outputs
from petlbench.experiment import Machine, measure
from petlbench.problems import classification, retrieval
from petlbench.problems.classification import CrossEntropy
from petlbench.request import Request
from petlbench.spec import RunSpec
from petlbench.store import Store

RANKS = 3


@contextmanager
def as_rank(rank: int, size: int) -> Iterator[None]:
    """As if this process were one of several, which do not speak."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "size", lambda: size)
        patch.setattr(parallel, "rank", lambda: rank)
        yield


def of_ranks(call: Callable[[], Any], size: int) -> list[Any]:
    found = []
    for rank in range(size):
        with as_rank(rank, size):
            found.append(call())
    return found


# -- shares ----------------------------------------------------------------------------------------


@given(total=st.integers(1, 60), size=st.integers(1, 9))
def test_shares_make_up_the_batch(total: int, size: int) -> None:
    batch = torch.randperm(total)
    shares = of_ranks(lambda: parallel.share(batch), size)
    assert sum(weight for _, weight in shares) == pytest.approx(1)
    taken = torch.cat([own for own, weight in shares if weight])
    assert sorted(taken.tolist()) == list(range(total))
    for own, weight in shares:
        assert weight == pytest.approx(len(own) / total) or (weight == 0 and len(own) == 1)
    assert max(len(own) for own, _ in shares) <= total / size + 2
    # as the feed of augmented images needs it: a smaller batch has no larger share
    more = of_ranks(lambda: parallel.share(torch.arange(total + 1)), size)
    assert all(len(a) <= len(b) for (a, _), (b, _) in zip(shares, more, strict=True))


@given(
    total=st.integers(1, 20),
    size=st.integers(2, 5),
    rules=st.sampled_from([{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.4, "cutmix": 1.0}]),
    seed=st.integers(0, 99),
)
def test_a_share_is_mixed_as_in_its_batch(
    total: int, size: int, rules: dict[str, float], seed: int
) -> None:
    images, labels = torch.rand(total, 3, 6, 6), torch.arange(total) % 4
    mixed, targets = mix(images, labels, 4, rules, seed)
    for own, weight in of_ranks(lambda: parallel.share(torch.arange(total)), size):
        if weight:
            found, soft = mix(images[own], labels[own], 4, rules, seed)
            assert torch.equal(found, mixed[own]) and torch.equal(soft, targets[own])


def test_a_process_that_is_no_rank_has_everything() -> None:
    batch, loss = torch.arange(5), torch.tensor(2.0)
    assert parallel.size() == 1
    assert parallel.share(batch)[0] is batch and parallel.share(batch)[1] == 1
    assert parallel.combine(loss, [nn.Parameter(loss)], 0.5) is loss and loss == 2
    assert parallel.gather(batch, 5) is batch and parallel.join(batch, 5) is batch
    assert parallel.block(5) == slice(0, 5)


# -- what ranks do with each other -----------------------------------------------------------------


def in_ranks(call: Callable[[], Any]) -> list[Any]:
    return parallel.launch([call] * RANKS, ["cpu"] * RANKS, 1)


class Small(nn.Module):
    """A classifier for which more images than `most` are too many; one parameter is not used."""

    def __init__(self, most: int) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer, self.most = nn.Linear(6, 4).double(), most
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.most:
            torch.empty(2**60)  # really out of memory
        logits: Tensor = self.layer(x)
        return logits


def batches_of(*sizes: int) -> list[Tensor]:
    return list(torch.arange(sum(sizes)).split(sizes))


SIZES = 8, 7, 2, 1
INPUTS = torch.randn(sum(SIZES), 6, generator=torch.Generator().manual_seed(0)).double()
LABELS = torch.arange(sum(SIZES)) % 4


def fit_small() -> tuple[list[tuple[float, list[Tensor]]], int, bool]:
    """Loss and gradient of each batch. Rank 1 has room for one image at a time."""
    model = Small(1 if parallel.rank() == 1 else 99)
    feed = lambda epoch, order: (INPUTS[chosen] for chosen in order)  # noqa: E731
    rules = protocol.load("mini").rules()
    gradients = CrossEntropy(model, model, feed, LABELS, rules, 0)
    found = []
    for loss in gradients(0, batches_of(*SIZES)):
        weights = [p.grad.clone() for p in model.layer.parameters() if p.grad is not None]
        found.append((loss.item(), weights))
        model.zero_grad()
    return found, gradients.parts, model.unused.grad is None


def test_shares_give_the_gradient_of_the_batch() -> None:
    """Whatever their sizes, and in how many parts each rank takes its own."""
    expected = []
    for batch in batches_of(*SIZES):
        model = Small(99)
        loss = nn.functional.cross_entropy(model.layer(INPUTS[batch]), LABELS[batch])
        loss.backward()  # type: ignore[no-untyped-call]
        expected.append((loss.item(), [p.grad for p in model.layer.parameters()]))
    ranks = in_ranks(fit_small)
    for found, _, unused in ranks:
        assert unused
        for (loss, gradient), (exact, whole) in zip(found, expected, strict=True):
            assert loss == pytest.approx(exact, rel=1e-6)
            torch.testing.assert_close(gradient, whole, rtol=1e-5, atol=1e-7)
    assert [parts for _, parts, _ in ranks] == [1, 2, 1]


def combine_some() -> list[Tensor | None]:
    """Gradients of parameters that only some examples use, summed over a batch and a short one."""
    found = []
    for count in (RANKS, 1):  # of the short one a rank has the example, and the others nothing
        every = [nn.Parameter(torch.ones(2)) for _ in range(RANKS + 1)]
        own, weight = parallel.share(torch.arange(count))
        loss = torch.stack([every[example].sum() for example in own.tolist()]).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        parallel.combine(loss.detach(), every, weight)
        found += [parameter.grad for parameter in every]
    return found


def test_a_parameter_may_have_a_gradient_on_one_rank_only() -> None:
    whole = combine_some()
    assert [gradient is None for gradient in whole] == [False] * 3 + [True] + [False] + [True] * 3
    for found in in_ranks(combine_some):
        torch.testing.assert_close(found, whole)


def compare_pairs() -> Tensor:
    """The gradient of retrieval's loss in the map of image features."""
    images, texts = INPUTS[:7], INPUTS[7:14]
    owners = torch.arange(7) // 2
    layer = Small(99).layer
    own, _ = parallel.share(torch.arange(7))
    of_images, of_texts = (parallel.gather(layer(each[own]), 7) for each in (images, texts))
    loss = retrieval.contrastive(of_images, of_texts, owners, 2.0)
    loss.backward()  # type: ignore[no-untyped-call]
    parallel.combine(loss.detach(), list(layer.parameters()), 1.0)
    assert layer.weight.grad is not None
    return layer.weight.grad


def test_every_pair_is_compared_with_those_of_other_ranks() -> None:
    whole = compare_pairs()
    for gradient in in_ranks(compare_pairs):
        torch.testing.assert_close(gradient, whole, rtol=1e-6, atol=1e-9)


COUNTS = 100, 2, 7  # one of them less than a rank each


def divide() -> tuple[list[Tensor], Tensor, Tensor, list[Tensor]]:
    device = torch.device("cpu")
    values = [outputs(lambda x: 2 * x, torch.arange(count)[:, None], device) for count in COUNTS]
    rank = parallel.rank()
    model = nn.Linear(2, 1)
    nn.init.constant_(model.weight, rank)
    model.register_buffer("mask", torch.tensor([rank == 0, rank > 1]))
    model.register_buffer("index", torch.tensor([rank]))
    parallel.align(model, seed=5)
    return values, model.weight.detach(), torch.rand(3), [model.mask, model.index]


def test_outputs_models_and_random_numbers_of_ranks() -> None:
    found = in_ranks(divide)
    for values, weight, _, (mask, index) in found:
        for value, count in zip(values, COUNTS, strict=True):
            assert value[:, 0].tolist() == [2 * i for i in range(count)]
        assert weight.eq(0).all() and mask.tolist() == [True, False] and index.item() == 0
    assert len({tuple(random.tolist()) for _, _, random, _ in found}) == RANKS


def fit_all(specs: Sequence[RunSpec]) -> list[Sequence[float]]:
    """The losses of three epochs on random images."""
    found = []
    for spec in specs:
        model = experiment.prepare(spec, Machine())
        data = classification.imaginary(spec, 12)
        normalise = Normalise(spec.rules["mean"], spec.rules["std"], torch.device("cpu"))
        spec.method.build().calibrate(model, experiment.batches(data.images, normalise))
        parallel.align(model, spec.seed)
        found.append(classification.fit(model, data, spec.rules, spec.seed).loss)
    return found


def test_methods_train_as_on_one_device(small: dict[str, Any]) -> None:
    """Of which one computes frozen features once, and one looks at training images before.

    The second batch has an image for one of the ranks alone.
    """
    rules = {"batch_size": 11, "epochs": 3, "optimizer": "sgd", "learning_rate": 0.01}
    names = "linear", "gps", "vpt"
    specs = [spec_of(small, undisturbed(name), **rules) for name in names]
    whole = fit_all(specs)
    for found in in_ranks(partial(fit_all, specs)):
        for name, losses, expected in zip(names, found, whole, strict=True):
            assert losses == pytest.approx(expected, rel=1e-4), name


def undisturbed(name: str) -> dict[str, Any]:
    """A method that draws no random numbers in training: those of ranks differ."""
    names = {field.name for field in fields(method.load(name))}
    return {"name": name} | {n: 0.0 for n in ("dropout", "drop_path") if n in names}


# -- whole runs ------------------------------------------------------------------------------------


def spec_of(small: dict[str, Any], name: Any, **rules: Any) -> RunSpec:
    rules = {"drop_path": 0.0, "drop_last": False, **rules}
    settings = small["settings"] | {f"protocol.{key}": value for key, value in rules.items()}
    return plan.make(Request(**small | {"methods": [name], "settings": settings})).specs[0]


def alike(spec: RunSpec, machine: Machine, loss: float = 1e-5, weights: float = 1e-4) -> None:
    """The stated tolerance: relative of the losses, absolute of the weights; 1% of predictions."""
    one, kept = measure(spec, machine, lambda _: None)
    several, others = measure(spec, replace(machine, devices_per_run=RANKS), lambda _: None)
    assert several["train_loss"] == pytest.approx(one["train_loss"], rel=loss)
    for name in ("parameters", "stored_bytes", "data", "test_reads", "frozen_stages", "inference"):
        assert several[name] == one[name]
    tensors, theirs = load(kept[".safetensors"]), load(others[".safetensors"])
    assert tensors.keys() == theirs.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=weights, msg=name)
    found = [predictions(files) for files in (kept, others)]
    assert len(found[0]) and (found[0] != found[1]).mean() <= 0.01


def predictions(files: dict[str, bytes]) -> Any:
    with np.load(io.BytesIO(files[".predictions.npz"])) as stored:
        return stored["predictions"]


def test_a_run_is_that_of_one_device(small: dict[str, Any]) -> None:
    """SGD, for Adam magnifies the rounding of what has no gradient, such as the keys' bias.

    Batches of 133 cannot be divided by three, and the last one has a single image.
    """
    alike(spec_of(small, "full", batch_size=133, optimizer="sgd", learning_rate=0.05), Machine())


def test_images_are_augmented_and_mixed_as_on_one_device(small: dict[str, Any]) -> None:
    rules = {"augmentation": "crop-flip", "resize_to": 20, "mixup": 0.2, "cutmix": 1.0}
    spec = spec_of(small, "lora", batch_size=133, **rules)
    alike(spec, Machine(recompute=True, attention="fused"))


def test_half_precision_is_that_of_one_device(small: dict[str, Any]) -> None:
    alike(
        spec_of(small, undisturbed("convpass"), precision="bf16"),
        Machine(),
        loss=0.01,
        weights=0.01,
    )


# -- what goes wrong -------------------------------------------------------------------------------

BREAKS = """
import os
from dataclasses import dataclass
import torch
from torch import nn
from petlbench import parallel
from petlbench.methods.lora import LoRA

class Breaks(nn.Module):
    def __init__(self):
        super().__init__()
        self.calls = 0
    def forward(self, x):
        self.calls += self.training
        if self.training and parallel.rank() == 1:
            if WHEN: DO
        return x

@dataclass(frozen=True)
class NAME(LoRA):
    \"\"\"LoRA, with a fault in the second of several processes.\"\"\"
    def attach(self, backbone):
        super().attach(backbone)
        backbone.blocks[0].attn.before.append(Breaks())
"""


def breaks(name: str, when: str, do: str) -> str:
    text = BREAKS.replace("WHEN", when).replace("DO", do).replace("NAME", name.capitalize())
    Path(f"{name}.py").write_text(text)
    return f"./{name}.py"


def test_what_goes_wrong_in_a_rank_ends_its_run_alone(small: dict[str, Any]) -> None:
    methods = [
        "lora",
        breaks("tight", "len(x) > 5", "torch.empty(2**60)"),
        breaks("dies", "self.calls == 3", "os._exit(9)"),
        breaks("full", "True", "torch.empty(2**60)"),
    ]
    result = petlbench.run(**small | {"methods": methods, "devices_per_run": 2})
    assert (result.done, result.failed) == (2, 2)
    records = {r["spec"]["method"]["name"]: r for r in Store(result.folder).load()[0]}
    died, full, tight, lora = (records[name] for name in ("dies", "full", "tight", "lora"))
    assert died["error"]["type"] == "ChildProcessError"
    assert "one of the 2 processes of this run died, for lack of" in died["error"]["message"]
    assert full["error"]["type"] == "RuntimeError" and "memory" in full["error"]["message"]
    assert "full.py" in full["error"]["traceback"]  # where it happened, in the rank
    # a rank without room for its ten images takes them in parts, whatever the other does
    assert (lora["micro_batches"], tight["micro_batches"]) == (1, 2)
    assert tight["train_loss"] == pytest.approx(lora["train_loss"], rel=1e-5)
    for record in records.values():
        assert record["environment"]["devices_per_run"] == 2
        assert record["environment"]["device"] == "cpu"
    assert lora["peak_bytes"] > 0


def wait_in(folder: Path) -> None:
    (folder / str(os.getpid())).touch()
    time.sleep(600)


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def test_an_interrupt_ends_the_ranks(tmp_path: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: len(list(tmp_path.iterdir())) == RANKS)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        in_ranks(partial(wait_in, tmp_path))
    for file in tmp_path.iterdir():
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.name), 0)


SCRIPT = """
import time
from pathlib import Path
from petlbench import parallel

def wait():
    Path(f"waiting in {parallel.rank()}").touch()
    time.sleep(600)

parallel.launch([wait] * 2, ["cpu"] * 2, 1)
"""


def test_ranks_end_with_a_killed_parent(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", SCRIPT], stdout=subprocess.PIPE) as process:
        wait_until(lambda: len(list(tmp_path.glob("waiting in *"))) == 2)
        process.kill()
        process.communicate(timeout=60)  # until nobody is left who could write


# -- what is asked for -----------------------------------------------------------------------------


def test_requests_that_cannot_be_met_are_refused(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    cli("run", "--devices-per-run", "0", small=True).refused("devices_per_run = 0", "at least 1")
    cli("benchmark", "--suite", "mini", "--devices-per-run", "2", small=True).refused(
        "leave out --devices-per-run"
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    parallel.require(2, "cuda", False, {})
    with pytest.raises(UsageError, match=r"GPUs of this machine are 2.*--device cpu"):
        parallel.require(3, "cuda", False, {})
    with pytest.raises(UsageError, match=r"a job would have 1 GPUs; .*gpus_per_node=3"):
        parallel.require(3, "cuda", True, {"gpus_per_node": 1})
    with pytest.raises(UsageError, match="one mps device"):
        parallel.require(2, "mps", False, {})


def test_each_rank_has_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 5)
    assert parallel.devices("cpu", 2) == ["cpu", "cpu"]
    assert parallel.devices("cuda", 2) == ["cuda:0", "cuda:1"]
    assert parallel.devices("cuda:2", 3) == ["cuda:2", "cuda:3", "cuda:4"]
    with pytest.raises(RunError, match="2 GPUs from cuda:4 on: this machine has 5"):
        parallel.devices("cuda:4", 2)
    store = Store(tmp_path)
    store.require_writable()
    first = []
    for _ in range(3):  # each a worker process; the third shares with the first
        monkeypatch.setattr(execute, "_held", held := [])
        first.append((execute._own_device(store, 3, 2), held))
    assert [device for device, _ in first] == ["cuda:0", "cuda:2", "cuda:0"]


def test_runs_at_a_time(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "usable_cores", lambda: 8)
    monkeypatch.setattr(plan, "_memory", lambda: 2**40)
    request = small | {"jobs": None, "threads": None, "seeds": 9, "devices_per_run": 2}
    made = plan.make(Request(**request))
    assert made.workers() == (2, 2)
    assert made.machine.devices_per_run == 2 and "on 2 devices" in benchmark.manner(made)
    assert estimate.wall_seconds(made, measure=True) == (
        None,
        "",
    )  # of one device it would be measured
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert replace(made, device="cuda").workers() == (2, 2)
