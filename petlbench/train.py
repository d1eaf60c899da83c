"""One straight training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from petlbench.errors import RunError, out_of_memory


def learning_rate(step: int, steps_per_epoch: int, rules: dict[str, Any]) -> float:
    """The rate of `step` (0-based).

    Linear warm-up to the peak p: w + (p - w) (step + 1) / W for step < W; then a cosine,
    m + (p - m) (1 + cos(pi (step - W) / (T - W))) / 2, with W warm-up steps of T in all.
    """
    peak, floor = rules["learning_rate"], rules["min_learning_rate"]
    warmup = rules["warmup_epochs"] * steps_per_epoch
    if step < warmup:
        start = rules["warmup_learning_rate"]
        return float(start + (peak - start) * (step + 1) / warmup)
    total = rules["epochs"] * steps_per_epoch
    angle = math.pi * (step - warmup) / (total - warmup)
    return float(floor + (peak - floor) * (1 + math.cos(angle)) / 2)


def train(
    model: nn.Module,
    forward: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    rules: dict[str, Any],
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> tuple[list[float], int]:
    """Train what requires a gradient; returns the mean loss of each epoch, and in how many parts
    a batch had to be taken for lack of memory (1: whole).

    `forward` maps a batch of `inputs` (N, ...), on any device, to logits of `model`; `labels` (N,)
    int64 lie where the logits do. The order of inputs depends on `seed` alone, so that every
    method sees the same batches. Raises RunError at the first non-finite loss.
    """
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, weight_decay=rules["weight_decay"], fused=True)
    order = torch.Generator().manual_seed(seed)
    batch = min(rules["batch_size"], len(labels))
    full = len(labels) // batch
    steps = full if rules["drop_last"] else math.ceil(len(labels) / batch)
    curve, parts = [], 1
    model.train()
    for epoch in range(rules["epochs"]):
        permutation = torch.randperm(len(labels), generator=order)
        of_inputs, of_labels = permutation.to(inputs.device), permutation.to(labels.device)
        losses = torch.zeros(steps, device=labels.device)
        for step in range(steps):
            now = slice(step * batch, (step + 1) * batch)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * steps + step, steps, rules)
            optimizer.zero_grad()
            losses[step], parts = backward(
                forward,
                inputs[of_inputs[now]],
                labels[of_labels[now]],
                trainable,
                rules["precision"] == "bf16",
                parts,
            )
            optimizer.step()
        finite = torch.isfinite(losses)  # read once per epoch: no synchronisation inside it
        if not finite.all():
            step = int((~finite).nonzero()[0])
            rate = learning_rate(epoch * steps + step, steps, rules)
            raise RunError(
                f"the training loss became {losses[step].item()} at step {step + 1} of epoch "
                f"{epoch + 1} (learning rate {rate:.2g}); lower the learning rate or the "
                "method's scale."
            )
        curve.append(losses.mean().item())
        on_epoch(epoch + 1, curve[-1])
    return curve, parts


def backward(
    forward: Callable[[Tensor], Tensor],
    inputs: Tensor,
    labels: Tensor,
    trainable: list[nn.Parameter],
    bf16: bool,
    parts: int = 1,
) -> tuple[Tensor, int]:
    """Accumulate the gradient of the batch's mean cross-entropy; returns the loss and `parts`.

    The batch is taken in `parts` micro-batches, and in twice as many where the device runs out of
    memory: the same gradient, up to the order of the sum, unless random numbers are drawn (another
    number of parts draws other dropout masks).
    """
    device = labels.device.type
    while True:
        loss = torch.zeros((), device=labels.device)
        try:
            for some, target in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
                with torch.autocast(device, torch.bfloat16, enabled=bf16):
                    logits = forward(some)
                total = nn.functional.cross_entropy(logits.float(), target, reduction="sum")
                share = total / len(labels)
                share.backward()  # type: ignore[no-untyped-call]
                loss += share.detach()
            return loss, parts
        except RuntimeError as error:
            if parts >= len(labels) or not out_of_memory(error):
                raise
        for parameter in trainable:  # outside the handler, which holds the failed graph
            parameter.grad = None
        parts *= 2
