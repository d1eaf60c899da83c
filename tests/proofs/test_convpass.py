"""Convpass, proven."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, conv3x3, linear, ln1, ln2, mhsa, mlp, num_prefix, quick_gelu
from torch import Tensor, nn

from petlbench.method import load
from proofs.common import (
    adapt,
    assert_uniform,
    assert_zero,
    dropped,
    images,
    initial,
    last_branches,
    perturb,
    tokens,
)

SETTINGS = [
    {"hidden": 3, "scale": 0.1, "init": "identity"},
    {"hidden": 2, "kernel": "1x1", "site": "mlp", "placement": "sequential"},
]
MORE = [
    {},
    {"hidden": 1, "scale": -2.5},
    {"kernel": "1x1"},
    {"site": "attn"},
    {"site": "mlp"},
    {"placement": "sequential"},
    {"placement": "sequential", "site": "attn", "scale": 10.0},
]
COUNTS = [
    ({}, 327_552),
    ({"site": "attn"}, 163_776),
    ({"site": "mlp"}, 163_776),
    ({"placement": "sequential"}, 327_552),
    ({"kernel": "1x1"}, 24 * (8 * 768 + 8 + 8 * 8 + 8 + 8 * 768 + 768)),
]
SIZE = "hidden"
DROPOUT = 0.1
BYPASS = ("down.weight", "down.bias", "up.weight", "up.bias", "conv.weight", "conv.bias")
BAD = [
    ("init", "zero", "one of 'xavier', 'identity'"),
    ("init", None, "one of 'xavier', 'identity'"),
    ("kernel", 3, "one of '3x3', '1x1'"),
    ("site", "ffn", "one of 'both', 'attn', 'mlp'"),
    ("placement", "after", "one of 'parallel', 'sequential'"),
]


def trained(p: Params) -> set[str]:
    """Six tensors wherever there is a bypass; the formula says where it must be."""
    bypasses = {name.removesuffix(".down.weight") for name in p if name.endswith("down.weight")}
    assert all(name.split(".")[-2:] in (["parallel", "0"], ["after", "0"]) for name in bypasses)
    names = {f"{bypass}.{tensor}" for bypass in bypasses for tensor in BYPASS}
    return names | {"head.weight", "head.bias"}


def conv_bypass(p: Params, name: str, z: Tensor, vit: Vit, kernel: str = "3x3") -> Tensor:
    """Up(q(Conv(q(Down z)))); a 1x1 kernel is a linear map of each token."""
    u = quick_gelu(linear(p, f"{name}.down", z))
    if kernel == "1x1":
        weight = p[f"{name}.conv.weight"]
        assert weight.shape[2:] == (1, 1)
        u = torch.einsum("bni,oi->bno", u, weight[:, :, 0, 0]) + p[f"{name}.conv.bias"]
    else:
        u = conv3x3(p, f"{name}.conv", u, num_prefix(p), vit.grid)
    return linear(p, f"{name}.up", quick_gelu(u))


def block(
    p: Params,
    i: int,
    x: Tensor,
    vit: Vit,
    *,
    scale: float = 1.0,
    kernel: str = "3x3",
    site: str = "both",
    placement: str = "parallel",
    **_: Any,
) -> Tensor:
    """A bypass reads what its sub-layer reads, or what it puts out."""

    def adapted(branch: str, z: Tensor, y: Tensor) -> Tensor:
        if site not in ("both", branch):
            return y
        where, read = ("parallel", z) if placement == "parallel" else ("after", y)
        name = f"vit.blocks.{i}.{branch}.{where}.0"
        return y + scale * conv_bypass(p, name, read, vit, kernel)

    z = ln1(p, i, x, vit)
    x = x + adapted("attn", z, mhsa(p, i, z, vit))
    z = ln2(p, i, x, vit)
    return x + adapted("mlp", z, mlp(p, i, z))


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


@pytest.mark.parametrize("init", ["xavier", "identity"])
def test_convpass_1x1_initialisation(init: str) -> None:
    found = initial("convpass", init=init, kernel="1x1")
    if init == "xavier":
        assert_uniform(found["conv.weight"], math.sqrt(6 / (8 + 8)))
    else:
        assert all(torch.equal(weight[:, :, 0, 0], torch.eye(8)) for weight in found["conv.weight"])


@pytest.mark.parametrize("site", ["attn", "mlp"])
@pytest.mark.parametrize("placement", ["parallel", "sequential"])
def test_convpass_starts_from_the_backbone(site: str, placement: str) -> None:
    config = {"site": site, "placement": placement}
    backbone, plain = adapt("convpass", config).eval(), adapt("linear").eval()
    assert torch.equal(backbone.encode(images()), plain.encode(images()))


def test_sequential_convpass_reads_a_dropped_output() -> None:
    """Outside drop-path: what the bypass makes of zero still reaches the stream."""
    branch = dropped("convpass", {"placement": "sequential"})
    bypass, x = cast(Any, branch.after[0]), tokens()
    bypass.drop_path.drop_prob = 0.0
    of_zero = bypass(torch.zeros_like(x))
    torch.testing.assert_close(branch(x), x + of_zero)
    assert of_zero.abs().max() > 0.01


def test_convpass_attn_is_a_preset() -> None:
    assert asdict(load("convpass_attn")()) == asdict(load("convpass")(site="attn"))
