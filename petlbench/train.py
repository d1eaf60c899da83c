"""One straight training loop."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from petlbench.data.normalise import Normalise
from petlbench.errors import RunError


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
    pixels: Tensor,
    labels: Tensor,
    rules: dict[str, Any],
    normalise: Normalise,
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train what requires a gradient; returns the mean training loss of each epoch.

    `pixels` (N, 3, S, S) uint8 and `labels` (N,) int64 may lie on any device. The order of images
    depends on `seed` alone, so that every method sees the same batches.
    Raises RunError at the first non-finite loss.
    """
    device = normalise.device
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, weight_decay=rules["weight_decay"])
    order = torch.Generator().manual_seed(seed)
    batch = min(rules["batch_size"], len(labels))
    full = len(labels) // batch
    steps = full if rules["drop_last"] else math.ceil(len(labels) / batch)
    bf16 = rules["precision"] == "bf16"
    curve = []
    model.train()
    for epoch in range(rules["epochs"]):
        permutation = torch.randperm(len(labels), generator=order)
        losses = torch.zeros(steps, device=device)
        for step in range(steps):
            chosen = permutation[step * batch : (step + 1) * batch].to(pixels.device)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * steps + step, steps, rules)
            images, target = normalise(pixels[chosen]), labels[chosen].to(device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                logits = model(images)
            loss = nn.functional.cross_entropy(logits.float(), target)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses[step] = loss.detach()
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
    return curve
