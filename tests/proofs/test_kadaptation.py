"""KAdaptation, proven."""

from __future__ import annotations

import math
from typing import Any

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
    base,
    initial,
    perturb,
)

SETTINGS = [{"terms": 3, "scale": 2.0}]
MORE = [{}, {"terms": 4, "scale": -1.0}, {"terms": 1}]
COUNTS = [({}, 50_176), ({"terms": 4}, 2 * 2 * 4 * 4 + 12 * (2 * 4 * 2 * 192 + 768))]
SIZE = "terms"
DROPOUT = 0.5
SITE = "attn.layer.qkv.weights.0"


def trained(p: Params) -> set[str]:
    """l and r once, under the first block; u, v and c in every block."""
    names = {f"vit.blocks.0.{SITE}.{t}" for t in "lr"}
    names |= {f"vit.blocks.{i}.{SITE}.{t}" for i in range(depth(p)) for t in "uvc"}
    return names | {"head.weight", "head.bias"}


def increment(p: Params, i: int, which: int) -> Tensor:
    """H, (D, D): row-vector convention, x H; product by product."""
    left, right = (p[f"vit.blocks.0.{SITE}.{t}"][which] for t in "lr")
    u, v = (p[f"vit.blocks.{i}.{SITE}.{t}"][which] for t in "uv")
    terms = zip(left, right, u, v, strict=True)
    return sum(
        (torch.kron(torch.outer(li, ri), torch.outer(ui, vi)) for li, ri, ui, vi in terms),
        start=torch.zeros(()),
    )


def block(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 160.0, **_: Any) -> Tensor:
    """q + s z H_q + c and v + s z H_v + c."""
    qkv = f"vit.blocks.{i}.attn.layer.qkv"
    query, value = (scale * increment(p, i, which).T for which in (0, 1))
    weight = p[f"{qkv}.weight"] + torch.cat([query, torch.zeros_like(query), value])
    c = p[f"vit.blocks.{i}.{SITE}.c"]
    bias = p.get(f"{qkv}.bias", torch.zeros(3 * len(c)).to(c)) + torch.cat([c, 0 * c, c])
    x = x + mhsa({**p, f"{qkv}.bias": bias}, i, ln1(p, i, x, vit), vit, qkv=weight)
    return x + mlp(p, i, ln2(p, i, x, vit))


def test_kadaptation_initialisation() -> None:
    """One of u and v is not zero: with both at zero, neither would ever receive a gradient."""
    found = initial("kadaptation")
    for shared in ("l", "r"):
        assert found[shared][0].shape == (2, 32, 32) and len(found[shared]) == 1
        assert_uniform(found[shared], 0.01)
    assert found["u"][0].shape == found["v"][0].shape == (2, 32, 24) and len(found["u"]) == 12
    assert_uniform(found["u"], math.sqrt(2) * math.sqrt(6 / (24 + 1)))
    assert_zero(found["v"] + found["c"])
    assert not torch.equal(found["u"][0][0], found["u"][0][1])  # q and v have their own


def test_kadaptation_shares_a_and_not_b() -> None:
    backbone = base()
    load("kadaptation")().attach(backbone)
    modules: list[Any] = [block.linear("qkv").weights[0] for block in backbone.blocks]
    assert all(m.l is modules[0].l and m.r is modules[0].r for m in modules)
    assert len({id(m.u) for m in modules}) == 12


def test_kadaptation_drops_entries_of_the_increment() -> None:
    """Not inputs or factors; before the scale; and neither W nor the bias is dropped."""
    qkv: Any = adapt("kadaptation", {"terms": 3, "scale": 1.0}).blocks[0].linear("qkv")
    module = qkv.weights[0]
    perturb(module)
    plain, bias = module.eval()(qkv.weight, qkv.bias)
    update = plain - qkv.weight
    torch.manual_seed(0)
    dropped, same = module.train()(qkv.weight, qkv.bias)
    assert torch.equal(same, bias)
    ratio = ((dropped - qkv.weight) / update).view(3, 12, 12)[[0, 2]]
    doubled, gone = torch.isclose(ratio, 2 * torch.ones_like(ratio)), ratio.abs() < 1e-6
    assert (doubled | gone).all() and 0.35 < doubled.double().mean() < 0.65
    module.dropout = Times()
    torch.testing.assert_close(module(qkv.weight, qkv.bias)[0] - qkv.weight, 3 * update)


def test_kadaptation_on_blocks_of_several_widths() -> None:
    """A is shared by all of them, B is as wide as its block: terms 32, widths 16 and 32."""
    model = SwinTransformer(
        img_size=32, patch_size=2, embed_dim=16, depths=(1, 1), num_heads=(2, 4), window_size=4
    )
    backbone = adopt(model)
    backbone.prepare(3)
    method = load("kadaptation")()
    method.attach(backbone)
    modules: list[Any] = [block.linear("qkv").weights[0] for block in backbone.blocks]
    assert [m.l.shape[2] for m in modules] == [16, 16]
    assert [m.u.shape[2] for m in modules] == [1, 2]
    own = sum(p.numel() for p in added(backbone).values())
    assert own == method.num_trainable(backbone.shape)
