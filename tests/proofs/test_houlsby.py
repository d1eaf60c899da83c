"""Adapter (Houlsby), proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, depth, linear, ln1, ln2, mhsa, mlp
from torch import Tensor

from petlbench.backbone import trained_parameters
from proofs.common import adapt, assert_zero, images, initial, last_branches, perturb, tokens

SETTINGS = [{"hidden": 3}]
MORE = [{}, {"init": "zero_up"}]
COUNTS = [
    ({}, 351_936),
    ({"norms": False}, 313_536),
    ({"hidden": 64, "norms": False}, 24 * (2 * 64 * 768 + 64 + 768)),
]
SIZE = "hidden"
BAD = [
    ("init", "xavier", "one of 'normal', 'zero_up'"),
    ("norms", 1, "of type bool"),
]
TENSORS = ("down.weight", "down.bias", "up.weight", "up.bias")
NORMS = ("attn.norm", "mlp.norm", "vit.norm", "vit.norm_pre", "vit.fc_norm")


def trained(p: Params) -> set[str]:
    """Two adapters a block, and the norms."""
    norms = {name for name in p if name.rpartition(".")[0].endswith(NORMS)}
    branches = {f"vit.blocks.{i}.{branch}" for i in range(depth(p)) for branch in ("attn", "mlp")}
    adapters = {f"{branch}.after.0.{t}" for branch in branches for t in TENSORS}
    return norms | adapters | {"head.weight", "head.bias"}


def gelu_tanh(u: Tensor) -> Tensor:
    return u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * u**3))) / 2


def adapter(p: Params, name: str, y: Tensor) -> Tensor:
    return y + linear(p, f"{name}.up", gelu_tanh(linear(p, f"{name}.down", y)))


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """x + A1(MHSA(LN1 x)), then x + A2(MLP(LN2 x))."""
    name = f"vit.blocks.{i}"
    x = x + adapter(p, f"{name}.attn.after.0", mhsa(p, i, ln1(p, i, x, vit), vit))
    return x + adapter(p, f"{name}.mlp.after.0", mlp(p, i, ln2(p, i, x, vit)))


def test_houlsby_without_norms() -> None:
    """Only the adapters train then."""
    names = trained_parameters(adapt("houlsby", {"norms": False})).keys()
    assert len(names) == 2 + 2 * 2 * 4
    assert all(name.startswith("head.") or ".after.0." in name for name in names)


def test_houlsby_acts_on_a_dropped_output() -> None:
    """Outside drop-path: what the adapter makes of zero still reaches the stream."""
    branch = last_branches(adapt("houlsby", drop_path_rate=0.4, init_values=0.1))[1].train()
    perturb(branch)
    cast(Any, branch.drop_path).drop_prob = 1.0
    module, x = cast(Any, branch.after[0]), tokens()
    of_zero = gelu_tanh(module.down.bias) @ module.up.weight.T + module.up.bias
    torch.testing.assert_close(branch(x), x + of_zero)
    assert of_zero.abs().max() > 0.01


@pytest.mark.parametrize("init", ["normal", "zero_up"])
def test_houlsby_initialisation(init: str) -> None:
    found = initial("houlsby", init=init, hidden=64, norms=False)
    assert_zero(found["down.bias"] + found["up.bias"])
    if init == "zero_up":
        assert_zero(found.pop("up.weight"))
    for weights in (tensors for name, tensors in found.items() if name.endswith("weight")):
        assert len(weights) == 24
        assert_truncated(torch.cat([weight.flatten() for weight in weights]), 0.01)


def assert_truncated(values: Tensor, std: float) -> None:
    """A normal distribution of that standard deviation, cut at two of them."""
    assert 1.99 * std < values.abs().max() <= 2 * std * (1 + 1e-6)
    assert values.std().item() == pytest.approx(0.8796 * std, rel=0.01)  # less, being cut
    within = (values.abs() < std).double().mean().item()
    assert within == pytest.approx(0.6827 / 0.9545, abs=0.01)  # a uniform one: 0.5


def test_houlsby_starts_near_the_backbone() -> None:
    plain = adapt("linear").eval().encode(images())
    near = adapt("houlsby").eval().encode(images())
    assert 0 < (near - plain).abs().max() < 0.01
    same = adapt("houlsby", {"init": "zero_up"}).eval().encode(images())
    assert torch.equal(same, plain)
