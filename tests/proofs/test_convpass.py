"""Convpass, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, conv3x3, linear, ln1, ln2, mhsa, mlp, num_prefix, quick_gelu
from torch import Tensor, nn

from proofs.common import (
    adapt,
    assert_uniform,
    assert_zero,
    initial,
    last_branches,
    perturb,
    tokens,
)

SETTINGS = [{"hidden": 3, "scale": 0.1, "init": "identity"}]
MORE = [{}, {"hidden": 1, "scale": -2.5}]
COUNTS = [({}, 327_552)]
SIZE = "hidden"
DROPOUT = 0.1
BYPASS = ("down.weight", "down.bias", "up.weight", "up.bias", "conv.weight", "conv.bias")
ADDED = tuple(f"{branch}.parallel.0.{t}" for branch in ("attn", "mlp") for t in BYPASS)
BAD = [
    ("init", "zero", "one of 'xavier', 'identity'"),
    ("init", None, "one of 'xavier', 'identity'"),
]


def conv_bypass(p: Params, name: str, z: Tensor, vit: Vit) -> Tensor:
    """Up(q(Conv3x3(q(Down z))))."""
    u = quick_gelu(linear(p, f"{name}.down", z))
    u = quick_gelu(conv3x3(p, f"{name}.conv", u, num_prefix(p), vit.grid))
    return linear(p, f"{name}.up", u)


def block(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, **_: Any) -> Tensor:
    """A bypass of MHSA and one of the MLP; both read what their sub-layer reads."""
    z = ln1(p, i, x, vit)
    bypass = conv_bypass(p, f"vit.blocks.{i}.attn.parallel.0", z, vit)
    x = x + mhsa(p, i, z, vit) + scale * bypass
    z = ln2(p, i, x, vit)
    bypass = conv_bypass(p, f"vit.blocks.{i}.mlp.parallel.0", z, vit)
    return x + mlp(p, i, z) + scale * bypass


@pytest.mark.parametrize("which", [0, 1], ids=["attn", "mlp"])
def test_convpass_draws_its_own_drop_path(which: int) -> None:
    """x + m y / keep + s m' C / keep: four outcomes, as likely as independent masks make them."""
    config = {"dropout": 0.0, "scale": 10.0}
    backbone = adapt("convpass", config, drop_path_rate=0.4, init_values=0.1)
    branch = last_branches(backbone)[which]
    perturb(branch)
    number, keep = 1000, 0.6
    x = tokens(1)
    branch.eval()
    bypass = branch.parallel[0](branch.norm(x))
    y = branch(x) - x - bypass
    branch.train()
    torch.manual_seed(3)
    outputs = branch(x.expand(number, -1, -1)) - x
    seen = 0
    for mask in (0, 1):
        for bypass_mask in (0, 1):
            outcome = mask * y / keep + bypass_mask * bypass / keep
            hits = int(torch.isclose(outputs, outcome).all(dim=2).all(dim=1).sum())
            probability = math.prod(keep if kept else 1 - keep for kept in (mask, bypass_mask))
            deviation = math.sqrt(number * probability * (1 - probability))
            assert abs(hits - number * probability) < 5 * deviation
            seen += hits
    assert seen == number


@pytest.mark.parametrize("method", ["convpass", "convpass_attn"])
def test_convpass_follows_the_ramp(method: str) -> None:
    """The bypass drops at the rate of its own block: linear from 0 to the backbone's rate."""
    backbone = adapt(method, drop_path_rate=0.3, depth=4)
    for block, rate in zip(backbone.blocks, (0.0, 0.1, 0.2, 0.3), strict=True):
        bypasses = [module for branch in block.branches for module in branch.parallel]
        assert len(bypasses) == (2 if method == "convpass" else 1)
        for bypass in bypasses:
            assert cast(Any, bypass.drop_path).drop_prob == pytest.approx(rate)
    assert len(last_branches(backbone)[0].parallel) == 1  # attn only: at MHSA, not at the MLP


def test_convpass_is_outside_layer_scale() -> None:
    """LayerScale at zero silences the branch, not its bypass."""
    branch = last_branches(adapt("convpass", {"scale": 10.0}, init_values=0.1))[0].eval()
    perturb(branch)
    nn.init.zeros_(cast(Any, branch.layer_scale).gamma)
    x = tokens()
    torch.testing.assert_close(branch(x), x + branch.parallel[0](branch.norm(x)))
    assert not torch.allclose(branch(x), x)


@pytest.mark.parametrize("method", ["convpass", "convpass_attn"])
@pytest.mark.parametrize("init", ["xavier", "identity"])
def test_convpass_initialisation(method: str, init: str) -> None:
    found = initial(method, init=init)
    assert_uniform(found["down.weight"], math.sqrt(6 / (768 + 8)))
    assert_zero(found["down.bias"] + found["conv.bias"] + found["up.weight"] + found["up.bias"])
    if init == "xavier":
        assert_uniform(found["conv.weight"], math.sqrt(6 / (9 * 8 + 9 * 8)))
        return
    for weight in found["conv.weight"]:
        assert torch.equal(weight[:, :, 1, 1], torch.eye(8))
        assert weight.abs().sum() == 8  # the eight other taps are zero
