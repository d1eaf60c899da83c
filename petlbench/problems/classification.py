"""Which class is it? A head on the image feature, cross-entropy, top-1 accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from petlbench import metrics, parallel
from petlbench.backbone import Backbone
from petlbench.data.normalise import Normalise
from petlbench.data.vault import Data, random_images
from petlbench.errors import UsageError, out_of_memory
from petlbench.evaluate import logits
from petlbench.method import Method
from petlbench.problems import Fitted, Outcome
from petlbench.problems._feed import Feed, feed, of
from petlbench.replay import Replay
from petlbench.spec import RunSpec
from petlbench.train import train

METRICS = ("accuracy", "balanced_accuracy", "macro_f1", "auroc", "quadratic_kappa")


def require(method: Method, spec: RunSpec, parameters: int) -> None:
    """`parameters`: what the method trains of this backbone, without the head."""
    from_text = spec.rules.get("head") == "text"
    if not method.trains_head and not from_text:
        raise UsageError(
            "it trains nothing, and a fresh head says nothing; it needs a head made from class "
            "names: --backbone clip:ViT-B-16.openai --set protocol.head=text."
        )
    if method.trains_head and not parameters and spec.rules.get("towers", "image") != "image":
        raise UsageError("it trains the head alone, and a text tower makes it here.")


def prepare(model: Backbone, spec: RunSpec, method: Method) -> None:
    """A fresh linear head, or one made from the names of the classes."""
    model.prepare(spec.classes, prompts(spec))
    if not method.trains_head:
        model.head.requires_grad_(False)


def prompts(spec: RunSpec) -> list[str]:
    """One text per class, where the protocol makes the head of them."""
    if spec.rules.get("head") != "text":
        return []
    names = spec.members["classes"].split("\n")
    return [spec.rules["prompt"].replace("{}", name) for name in names]


def fit(
    model: Backbone,
    data: Data,
    rules: dict[str, Any],
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Fitted:
    """Train on the images of `data`, whose labels are classes."""
    inputs, start = feed(model, data, rules, seed)
    labels = torch.from_numpy(data.images.labels).to(next(model.parameters()).device)
    gradients = CrossEntropy(model, partial(model, start=start), inputs, labels, rules, seed)
    loss = train(model, gradients, len(labels), rules, seed, on_epoch)
    return Fitted(loss, start, gradients.parts)


class CrossEntropy:
    """Adds up the gradient of each batch's mean cross-entropy: `train.Gradients`.

    A batch is taken in `parts` micro-batches, twice as many whenever the device runs out of
    memory: the same gradient, up to the order of the sum, unless random numbers are drawn
    (another number of parts draws other dropout masks).
    """

    def __init__(
        self,
        model: nn.Module,
        forward: Callable[[Tensor], Tensor],
        feed: Feed,
        labels: Tensor,
        rules: dict[str, Any],
        seed: int,
    ) -> None:
        self.trainable = [p for p in model.parameters() if p.requires_grad]
        self.forward, self.feed, self.labels = forward, feed, labels
        self.rules, self.seed, self.parts = rules, seed, 1
        self.replay = Replay(self.trainable) if getattr(model, "replay", False) else None
        self.classes: int = getattr(model, "num_classes", 0)
        self.mixes = bool(rules["mixup"] or rules["cutmix"])
        self.smoothing = 0.0 if self.mixes else rules["label_smoothing"]

    def __call__(self, epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        shares, weights = zip(*map(parallel.share, batches), strict=True)
        for step, inputs in enumerate(self.feed(epoch, shares)):
            targets = self.labels[of(shares[step], self.labels)]
            if self.mixes:
                from petlbench.data.augment import mix  # its libraries take a second to import

                draw = (self.seed, epoch, step)
                inputs, targets = mix(inputs, targets, self.classes, self.rules, draw)
            loss = self.fitting(inputs, targets)
            yield parallel.combine(loss, self.trainable, weights[step])

    def fitting(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """The batch's loss, its gradient added up in parts that fit into memory."""
        while True:
            try:
                if self.replay:
                    return self.replay(self.accumulate, inputs, targets)
                return self.accumulate(inputs, targets)
            except (RuntimeError, MemoryError) as error:
                if self.parts >= len(targets) or not out_of_memory(error):
                    raise
            for parameter in self.trainable:  # outside the handler, which holds the failed graph
                parameter.grad = None
            self.parts *= 2

    def accumulate(self, inputs: Tensor, targets: Tensor) -> Tensor:
        device, loss = targets.device.type, torch.zeros((), device=targets.device)
        bf16 = self.rules["precision"] == "bf16"
        parts = zip(inputs.chunk(self.parts), targets.chunk(self.parts), strict=True)
        for some, target in parts:
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                found = self.forward(some)
            total = nn.functional.cross_entropy(
                found.float(), target, reduction="sum", label_smoothing=self.smoothing
            )
            share = total / len(targets)
            share.backward()  # type: ignore[no-untyped-call]
            loss += share.detach()
        return loss


def outputs(model: Backbone, data: Data, rules: dict[str, Any]) -> Tensor:
    """Logits (N, classes) on the CPU, all finite."""
    device = next(model.parameters()).device
    normalise = Normalise(rules["mean"], rules["std"], device)
    pixels = torch.from_numpy(data.images.pixels)
    return logits(model, pixels, normalise, rules["precision"] == "bf16")


def score(found: Tensor, data: Data, ordinal: bool = False, among_present: bool = False) -> Outcome:
    """`among_present`: only classes that occur in the split compete."""
    labels = data.images.labels
    if among_present:
        absent = np.setdiff1d(np.arange(found.shape[1]), labels)
        found = found.index_fill(1, torch.from_numpy(absent), float("-inf"))
    predictions = found.argmax(1).numpy()
    probabilities = found.double().softmax(1).numpy()
    return Outcome(
        total=len(labels),
        correct=int((predictions == labels).sum()),
        metrics=metrics.classification(labels, probabilities, found.shape[1], ordinal),
        arrays={"predictions": predictions.astype(np.int32), "labels": labels.astype(np.int32)},
    )


def imaginary(spec: RunSpec, count: int) -> Data:
    return random_images(count, spec.rules["image_size"], max(1, spec.classes))
