"""RepAdapter, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, depth, linear, ln1, ln2, mhsa, mlp
from torch import Tensor, nn

from petlbench.errors import UsageError
from petlbench.method import load
from proofs.common import (
    Times,
    adapt,
    assert_uniform,
    assert_zero,
    dropped,
    initial,
    last_branches,
    perturb,
    tokens,
)

SETTINGS = [
    {"hidden": 4, "scale": -0.5},
    {"hidden": 6, "groups": 3, "place": "attn"},
]
MORE = [{}, {"hidden": 3, "groups": 1, "scale": 10.0}, {"hidden": 12, "groups": 4}]
COUNTS = [
    ({}, 239_808),
    ({"place": "attn"}, 119_904),
    ({"groups": 1}, 24 * (2 * 8 * 768 + 8 + 768)),
]
SIZE = "hidden"
DROPOUT = 0.1
OWN = ("down.weight", "down.bias", "up", "bias")
BAD = [
    ("groups", 0, ">= 1"),
    ("place", "mlp", "one of 'both', 'attn'"),
]


def trained(p: Params) -> set[str]:
    """In front of MHSA in any case, and of the MLP where the model has them there."""
    places = [b for b in ("attn", "mlp") if f"vit.blocks.0.{b}.before.0.up" in p]
    names = {
        f"vit.blocks.{i}.{b}.before.0.{t}" for i in range(depth(p)) for b in places for t in OWN
    }
    return names | {"head.weight", "head.bias"}


def adapter(p: Params, name: str, z: Tensor, scale: float) -> Tensor:
    """z + s (B A z + b), B written out as a dense block-diagonal matrix."""
    up = torch.block_diag(*p[f"{name}.up"])
    y = torch.einsum("bnh,dh->bnd", linear(p, f"{name}.down", z), up)
    return z + scale * (y + p[f"{name}.bias"])


def block(
    p: Params,
    i: int,
    x: Tensor,
    vit: Vit,
    *,
    scale: float = 1.0,
    place: str = "both",
    **_: Any,
) -> Tensor:
    x = x + mhsa(p, i, adapter(p, f"vit.blocks.{i}.attn.before.0", ln1(p, i, x, vit), scale), vit)
    z = ln2(p, i, x, vit)
    if place == "both":
        z = adapter(p, f"vit.blocks.{i}.mlp.before.0", z, scale)
    return x + mlp(p, i, z)


@pytest.mark.parametrize("place", ["both", "attn"])
def test_repadapter_initialisation(place: str) -> None:
    found = initial("repadapter", place=place)
    assert_uniform(found["down.weight"], math.sqrt(6 / (768 + 8)))
    assert_zero(found["down.bias"] + found["up"])
    assert_zero(found["bias"])
    assert found["up"][0].shape == (2, 384, 4)
    assert len(found["up"]) == (24 if place == "both" else 12)


def test_repadapter_is_inside_drop_path() -> None:
    """It feeds the MLP: with the branch dropped, nothing of it reaches the stream."""
    branch, x = dropped("repadapter", {}), tokens()
    assert torch.equal(branch(x), x)


def test_repadapter_reads_the_norm() -> None:
    branch = last_branches(adapt("repadapter"))[0].eval()
    perturb(branch)
    x = tokens()
    expected = x + branch.layer(branch.before[0](branch.norm(x)))
    torch.testing.assert_close(branch(x), expected)


def test_repadapter_drops_its_bottleneck() -> None:
    module = cast(Any, last_branches(adapt("repadapter", {"scale": 0.5}))[0].before[0])
    perturb(module)
    module.dropout = Times()
    z = tokens()
    seen: list[Tensor] = []
    module.dropout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    y = module(z)
    torch.testing.assert_close(seen[0], module.down(z))
    expected = z + 0.5 * (3 * seen[0] @ torch.block_diag(*module.up).T + module.bias)
    torch.testing.assert_close(y, expected)


def test_repadapter_is_linear() -> None:
    """No activation: of the sum, as much as of the parts."""
    module = last_branches(adapt("repadapter"))[1].before[0].eval()
    perturb(module)
    x, y = tokens(8).split(4)
    nothing = module(torch.zeros_like(x))
    torch.testing.assert_close(module(x + y) + nothing, module(x) + module(y))


def test_repadapter_groups_are_a_grouped_convolution() -> None:
    """B as the released code has it: a convolution of kernel 1 with g groups."""
    module = cast(Any, last_branches(adapt("repadapter", {"hidden": 4}))[0].before[0]).eval()
    perturb(module)
    convolution = nn.Conv1d(4, 12, 1, groups=2).double()
    with torch.no_grad():
        convolution.weight.copy_(module.up.flatten(0, 1)[..., None])
        convolution.bias.copy_(module.bias)
    z = tokens()
    expected = z + convolution(module.down(z).transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(module(z), expected)


@pytest.mark.parametrize(
    ("config", "width"), [({"hidden": 9}, 9), ({"hidden": 15, "groups": 5}, 12)]
)
def test_repadapter_refuses_unequal_groups(config: dict[str, Any], width: int) -> None:
    with pytest.raises(UsageError, match=f"a width of {width} does not divide"):
        load("repadapter")(**config).require(adapt("linear").shape)
