"""Compacter, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from torch import Tensor

from petlbench.backbone import stored_tensors, trained_parameters
from petlbench.check import check, tiny
from petlbench.errors import UsageError
from petlbench.method import load
from proofs.common import (
    adapt,
    assert_uniform,
    assert_zero,
    base,
    images,
    initial,
    last_branches,
    perturb,
    tokens,
)
from proofs.test_houlsby import NORMS, gelu_tanh

SETTINGS = [{"hidden": 6, "n": 3}, {"hidden": 3, "n": 1, "site": "mlp"}]
MORE = [{}, {"hidden": 4, "n": 2}, {"hidden": 8, "n": 4, "site": "mlp"}]
PEVIT = {"site": "mlp", "hidden": 64, "norms": False, "own_norm": True, "rule": "frozen"}
COUNTS = [
    ({"norms": False}, 64 + 24 * 3 * (768 + 24)),
    ({"norms": False}, 57_088),
    ({}, 57_088 + 38_400),
    ({"norms": False, "site": "mlp"}, 28_576),
    ({"norms": False, "n": 8}, 57_088 - 64 + 512),  # only A depends on n
    (PEVIT, 48_384),
]
SIZE = "hidden"
BAD = [
    ("n", 0, ">= 1"),
    ("n", 4.0, "of type int"),
    ("norms", None, "of type bool"),
    ("site", "attn", "one of 'both', 'mlp'"),
]
FACTORS = tuple(f"{layer}.{t}" for layer in ("down", "up") for t in ("s", "t", "bias"))


def trained(p: Params) -> set[str]:
    """One A in all, six vectors or pairs of factors an adapter, and the norms."""
    rules = {name for name in p if name.endswith(".rule")}
    assert len(rules) == 1
    adapters = {name.removesuffix(".down.s") for name in p if name.endswith(".down.s")}
    assert all(name.endswith(("attn.after.0", "mlp.after.0")) for name in adapters)
    names = {name for name in p if name.rpartition(".")[0].endswith(NORMS)}
    names |= {f"{adapter}.{t}" for adapter in adapters for t in FACTORS}
    return rules | names | {"head.weight", "head.bias"}


def layer(p: Params, name: str, z: Tensor) -> Tensor:
    """W z + b, W a sum of Kronecker products."""
    rule = next(p[key] for key in p if key.endswith(".rule"))
    s, t = p[f"{name}.s"], p[f"{name}.t"]
    weight = sum(torch.kron(rule[i], s[i][:, None] * t[i][None]) for i in range(len(rule)))
    return torch.einsum("bni,oi->bno", z, cast(Tensor, weight)) + p[f"{name}.bias"]


def adapter(p: Params, name: str, y: Tensor) -> Tensor:
    return y + layer(p, f"{name}.up", gelu_tanh(layer(p, f"{name}.down", y)))


def block(p: Params, i: int, x: Tensor, vit: Vit, *, site: str = "both", **_: Any) -> Tensor:
    """x + A1(MHSA(LN1 x)), then x + A2(MLP(LN2 x))."""
    y = mhsa(p, i, ln1(p, i, x, vit), vit)
    x = x + (adapter(p, f"vit.blocks.{i}.attn.after.0", y) if site == "both" else y)
    return x + adapter(p, f"vit.blocks.{i}.mlp.after.0", mlp(p, i, ln2(p, i, x, vit)))


def test_compacter_initialisation() -> None:
    """Of one (d / n, 1) matrix and its like, with gain sqrt 2; d / n is 192 and 6."""
    found = initial("compacter", norms=False)
    assert_uniform(found["down.t"] + found["up.s"], math.sqrt(2) * math.sqrt(6 / (192 + 1)))
    assert_uniform(found["down.s"] + found["up.t"], math.sqrt(2) * math.sqrt(6 / (6 + 1)))
    assert_zero(found["down.bias"] + found["up.bias"])
    (rule,) = found["down.rule"]  # one for all layers
    assert rule.shape == (4, 4, 4)
    (rule,) = initial("compacter", norms=False, n=24)["down.rule"]
    assert rule.std().item() == pytest.approx(1e-4, rel=0.05)
    assert rule.abs().max() > 3e-4  # normal, not uniform


def test_compacter_shares_one_rule() -> None:
    """Down and Up of all blocks, at both places, also where blocks differ in width."""
    for backbone in (adapt("compacter"), tiny("Swin")):
        if backbone.family == "Swin":
            load("compacter")().attach(backbone)
        places = [cast(Any, b.after[0]) for block in backbone.blocks for b in block.branches]
        rules = {id(layer.rule) for place in places for layer in (place.down, place.up)}
        assert len(places) == 2 * len(backbone.blocks) and len(rules) == 1


def test_compacter_starts_from_the_backbone() -> None:
    """Not exactly, or nothing would train, but within rounding."""
    plain = adapt("linear").eval().encode(images())
    near = adapt("compacter").eval().encode(images())
    assert 0 < (near - plain).abs().max() < 1e-5


def test_compacter_without_norms() -> None:
    names = trained_parameters(adapt("compacter", {"norms": False})).keys()
    assert all(name.startswith("head.") or ".after.0." in name for name in names)


def test_compacter_acts_on_a_dropped_output() -> None:
    """Outside drop-path: what the adapter makes of zero still reaches the stream."""
    branch = last_branches(adapt("compacter", drop_path_rate=0.4, init_values=0.1))[1].train()
    perturb(branch)
    cast(Any, branch.drop_path).drop_prob = 1.0
    x = tokens()
    of_zero = branch.after[0](torch.zeros_like(x))
    torch.testing.assert_close(branch(x), x + of_zero)
    assert of_zero.abs().max() > 0.01


@pytest.mark.parametrize(("config", "width"), [({"hidden": 10}, 10), ({"hidden": 10, "n": 5}, 768)])
def test_compacter_refuses_widths(config: dict[str, int], width: int) -> None:
    with pytest.raises(UsageError, match=f"does not divide the width {width}"):
        load("compacter")(**config).require(base().shape)


def test_the_variant_of_pevit() -> None:
    """A LayerNorm of its own inside each adapter; A is drawn once, and stored, but not trained."""
    found = check(load("compacter")(**PEVIT | {"hidden": 8}))
    assert [finding for finding in found if not finding.holds] == []
    backbone = adapt("compacter", PEVIT | {"hidden": 8})
    adapter = cast(Any, backbone.blocks[0].mlp.after[0])
    rule = adapter.down.rule
    assert rule is cast(Any, backbone.blocks[1].mlp.after[0]).up.rule and not rule.requires_grad
    assert rule.abs().max() <= 1 and rule.std() > 0.4
    assert any(tensor is rule for tensor in stored_tensors(backbone).values())
    perturb(adapter)
    y = tokens()
    z = torch.nn.functional.layer_norm(y, (12,), adapter.norm.weight, adapter.norm.bias)
    weights = [
        sum(
            torch.kron(a, torch.outer(s, t))
            for a, s, t in zip(part.rule, part.s, part.t, strict=True)
        )
        for part in (adapter.down, adapter.up)
    ]
    u = gelu_tanh(z @ weights[0].T + adapter.down.bias)
    torch.testing.assert_close(adapter(y), y + u @ weights[1].T + adapter.up.bias)
