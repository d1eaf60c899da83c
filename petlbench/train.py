"""One straight training loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from petlbench.errors import RunError

# (epoch, batches): for each batch of indices (B,) it adds up a gradient, and yields the loss.
Gradients = Callable[[int, Sequence[Tensor]], Iterator[Tensor]]


def learning_rate(step: int, steps_per_epoch: int, rules: dict[str, Any]) -> float:
    """The rate of `step` (0-based).

    Linear warm-up to the peak p: w + (p - w) (step + 1) / W for step < W; then a cosine,
    m + (p - m) (1 + cos(pi (step - W) / (T - W))) / 2, or a straight line,
    m + (p - m) (T - step) / (T - W), with W warm-up steps of T in all.
    """
    peak, floor = peak_rate(rules), rules["min_learning_rate"]
    warmup = rules["warmup_epochs"] * steps_per_epoch
    if step < warmup:
        start = rules["warmup_learning_rate"]
        return float(start + (peak - start) * (step + 1) / warmup)
    total = rules["epochs"] * steps_per_epoch
    if rules["schedule"] == "linear":
        return float(floor + (peak - floor) * (total - step) / (total - warmup))
    angle = math.pi * (step - warmup) / (total - warmup)
    return float(floor + (peak - floor) * (1 + math.cos(angle)) / 2)


def peak_rate(rules: dict[str, Any]) -> float:
    """The learning rate of the protocol, for its batch size."""
    per = rules["learning_rate_batch"]
    return float(rules["learning_rate"] * (rules["batch_size"] / per if per else 1))


def make_optimizer(model: nn.Module, rules: dict[str, Any]) -> torch.optim.Optimizer:
    """Over what trains; each group's `share` is its rate over that of the schedule."""
    body: list[nn.Parameter] = []
    head: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (head if name.startswith("head.") else body).append(parameter)
    groups: list[dict[str, Any]] = [{"params": body + head, "share": 1.0}]
    if rules["head_learning_rate"]:
        share = rules["head_learning_rate"] / rules["learning_rate"]
        groups = [{"params": body, "share": 1.0}, {"params": head, "share": share}]
        groups = [group for group in groups if group["params"]]
    if rules["optimizer"] == "sgd":
        momentum = rules["momentum"]
        return torch.optim.SGD(groups, 1.0, momentum, weight_decay=rules["weight_decay"])
    betas = (0.9, rules["beta2"])
    return torch.optim.AdamW(groups, betas=betas, weight_decay=rules["weight_decay"], fused=True)


def train(
    model: nn.Module,
    gradients: Gradients,
    count: int,
    rules: dict[str, Any],
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> list[float]:
    """Train what requires a gradient, on `count` examples; returns the mean loss of each epoch.

    The order of examples depends on `seed` alone, so that every method sees the same batches; an
    epoch has at least one. `on_epoch` may look at the model. Raises RunError at the first
    non-finite loss.
    """
    if not any(p.requires_grad for p in model.parameters()):
        return []
    optimizer = make_optimizer(model, rules)
    order = torch.Generator().manual_seed(seed)
    batch = min(rules["batch_size"], count)
    steps = count // batch if rules["drop_last"] else math.ceil(count / batch)
    curve = []
    for epoch in range(rules["epochs"]):
        model.train()
        permutation = torch.randperm(count, generator=order)
        batches = [permutation[i * batch : (i + 1) * batch] for i in range(steps)]
        of_epoch, losses = gradients(epoch, batches), []
        for step in range(steps):
            for group in optimizer.param_groups:
                rate = learning_rate(epoch * steps + step, steps, rules)
                group["lr"] = rate * group["share"]
            optimizer.zero_grad()
            losses.append(next(of_epoch))
            optimizer.step()
        means = torch.stack(losses)
        finite = torch.isfinite(means)  # read once per epoch: no synchronisation inside it
        if not finite.all():
            step = int((~finite).nonzero()[0])
            rate = learning_rate(epoch * steps + step, steps, rules)
            raise RunError(
                f"the training loss became {means[step].item()} at step {step + 1} of epoch "
                f"{epoch + 1} (learning rate {rate:.2g}); lower the learning rate or the "
                "method's scale."
            )
        curve.append(means.mean().item())
        on_epoch(epoch + 1, curve[-1])
    return curve
