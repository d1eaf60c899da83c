"""ARC, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, depth, ln1, ln2, mhsa, mlp
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from petlbench.backbones import adopt
from petlbench.method import load
from proofs.common import (
    Times,
    adapt,
    added,
    assert_uniform,
    assert_zero,
    dropped,
    initial,
    last_branches,
    perturb,
    tokens,
)

SETTINGS = [{"rank": 3}]
MORE = [{}, {"rank": 1, "init": "zero"}]
COUNTS = [({}, 96_432), ({"rank": 10}, 2 * 768 * 10 + 24 * (10 + 768))]
SIZE = "rank"
DROPOUT = 0.1
BAD = [("init", "identity", "one of 'xavier', 'zero'")]


def trained(p: Params) -> set[str]:
    """U under the first block only; c and b under every block."""
    names = {
        f"vit.blocks.{i}.{branch}.before.0.{t}"
        for i in range(depth(p))
        for branch in ("attn", "mlp")
        for t in ("u", "c", "b")
        if t != "u" or i == 0
    }
    return names | {"head.weight", "head.bias"}


def adapter(p: Params, i: int, branch: str, z: Tensor) -> Tensor:
    """(I + U diag(c) U^T) z + b, as a dense symmetric matrix."""
    u = p[f"vit.blocks.0.{branch}.before.0.u"]
    c, b = (p[f"vit.blocks.{i}.{branch}.before.0.{t}"] for t in "cb")
    symmetric = torch.einsum("dr,r,er->de", u, c[0], u)
    return z + torch.einsum("bne,de->bnd", z, symmetric) + b


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    x = x + mhsa(p, i, adapter(p, i, "attn", ln1(p, i, x, vit)), vit)
    return x + mlp(p, i, adapter(p, i, "mlp", ln2(p, i, x, vit)))


@pytest.mark.parametrize("init", ["xavier", "zero"])
def test_arc_initialisation(init: str) -> None:
    found = initial("arc", init=init)
    attn, mlp = found["u"]  # two in the whole model
    assert attn.shape == mlp.shape == (768, 50)
    for u in (attn, mlp):
        assert_uniform([u], math.sqrt(6 / (768 + 50)))
    assert not torch.equal(attn, mlp)
    assert len(found["c"]) == len(found["b"]) == 24
    assert_zero(found["b"] + found["c"][::2])  # attention
    if init == "zero":
        assert_zero(found["c"])
    else:
        assert_uniform(found["c"][1::2], math.sqrt(6 / (1 + 50)))


def test_arc_shares_its_projections_over_the_blocks() -> None:
    backbone = adapt("arc", depth=3)
    for place in range(2):
        modules = [cast(Any, block.branches[place].before[0]) for block in backbone.blocks]
        assert all(module.u is modules[0].u for module in modules)
        assert len({id(module.c) for module in modules}) == 3


def test_arc_has_a_pair_of_projections_per_stage_of_swin() -> None:
    model = SwinTransformer(
        img_size=32, patch_size=2, embed_dim=8, depths=(2, 1), num_heads=(2, 2), window_size=4
    )
    backbone = adopt(model)
    backbone.prepare(3)
    method = load("arc")(rank=3)
    method.attach(backbone)
    shapes = [tuple(p.shape) for n, p in added(backbone).items() if n.endswith(".u")]
    assert shapes == [(8, 3), (8, 3), (16, 3), (16, 3)]
    own = sum(p.numel() for p in added(backbone).values())
    assert own == method.num_trainable(backbone.shape)


def test_arc_is_inside_drop_path() -> None:
    branch, x = dropped("arc", {}), tokens()
    assert torch.equal(branch(x), x)


def test_arc_reads_the_norm() -> None:
    branch = last_branches(adapt("arc"))[1].eval()
    perturb(branch)
    x = tokens()
    torch.testing.assert_close(branch(x), x + branch.layer(branch.before[0](branch.norm(x))))


def test_arc_drops_between_the_projections() -> None:
    module = cast(Any, last_branches(adapt("arc"))[0].before[0])
    perturb(module)
    module.dropout = Times()
    seen: list[Tensor] = []
    module.dropout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    z = tokens()
    y = module(z)
    torch.testing.assert_close(seen[0], z @ module.u @ torch.diag(module.c[0]))
    torch.testing.assert_close(y, z + 3 * seen[0] @ module.u.T + module.b)
