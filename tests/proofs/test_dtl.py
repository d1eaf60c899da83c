"""DTL, proven."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, classify, depth, embed, num_prefix, plain
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from petlbench.backbone import Backbone
from petlbench.backbones import adopt
from petlbench.check import check
from petlbench.method import load
from proofs.common import adapt, added, assert_uniform, assert_zero, images, initial
from proofs.test_mona import depthwise

SETTINGS = [{"rank": 3, "conv": True, "beta": 2.0}]
MORE = [
    {},
    {"rank": 1, "start": 0.0, "conv": True},
    {"start": 0.99, "beta": 0.5},
    {"conv": True, "start": 0.99},
]
COUNTS = [({}, 36_864), ({"conv": True}, 43_776), ({"rank": 4, "start": 0.0}, 73_728)]
SIZE = "rank"
BAD = [
    ("start", 1.0, ">= 0 and < 1"),
    ("start", -0.5, ">= 0 and < 1"),
    ("beta", 0, "> 0"),
    ("conv", 1, "of type bool"),
]


def trained(p: Params) -> set[str]:
    """A and B of every block; the convolution, where the first block that uses it has it."""
    conv = [name for name in p if name.endswith(".side.0.conv.weight")]
    assert len(conv) <= 1
    names = {f"vit.blocks.{i}.side.0.{t}" for i in range(depth(p)) for t in "ab"}
    return names | {*conv, "head.weight", "head.bias"}


def logits(
    p: Params,
    images: Tensor,
    vit: Vit,
    *,
    start: float = 0.5,
    beta: float = 100.0,
    conv: bool = False,
    **_: Any,
) -> Tensor:
    """h gathers B A x over the blocks; f(h) is added to what a later block puts out."""
    x, begin, h = embed(p, images, vit), int(start * depth(p)), 0.0
    for i in range(depth(p)):
        a, b = (p[f"vit.blocks.{i}.side.0.{t}"] for t in "ab")
        h = h + torch.einsum("bnd,rd,or->bno", x, a, b)
        x = plain(p, i, x, vit)
        if i >= begin:
            f = h / (1 + torch.exp((-beta * h).clamp(max=600)))
            if conv:
                name, n = f"vit.blocks.{begin}.side.0.conv", num_prefix(p)
                without_bias = {
                    f"{name}.weight": p[f"{name}.weight"],
                    f"{name}.bias": x.new_zeros(x.shape[-1]),
                }
                patches = depthwise(without_bias, name, f[:, n:], 0, vit.grid)
                f = torch.cat([f[:, :n], patches], dim=1)
            x = x + f
    return classify(p, x, vit)


def test_dtl_initialisation() -> None:
    """A Kaiming-uniform, B zero: an identity. The convolution as PyTorch has it, once for all."""
    found = initial("dtl", conv=True, rank=8)
    assert len(found["a"]) == len(found["b"]) == 12
    assert_uniform(found["a"], 768**-0.5)
    assert_zero(found["b"])
    (conv,) = found["conv.weight"]
    assert conv.shape == (768, 1, 3, 3)
    assert_uniform([conv], 1 / 3)


def test_dtl_feeds_back_from_the_seventh_of_twelve_blocks() -> None:
    backbone = adapt("dtl", {"conv": True}, depth=12)
    sides = [cast(Any, block.side[0]) for block in backbone.blocks]
    assert [side.feeds for side in sides] == [False] * 6 + [True] * 6
    assert [side.first for side in sides] == [True] + [False] * 11
    assert len({id(side.conv) for side in sides[6:]}) == 1 and sides[5].conv is None


def test_dtl_early_blocks_need_no_graph() -> None:
    """In front of the feedback the tokens carry no gradient; the state does."""
    backbone = adapt("dtl", depth=4).train()
    x, state = backbone.embed(images()), None
    graph = []
    for block in backbone.blocks:
        x, state = block(x, state)
        assert state.requires_grad
        graph.append(x.requires_grad)
    assert graph == [False, False, True, True]


def swin(**config: Any) -> Backbone:
    torch.manual_seed(0)
    model = SwinTransformer(
        img_size=32, patch_size=2, embed_dim=8, depths=(2, 2, 2), num_heads=(1, 2, 4), window_size=4
    )
    backbone = adopt(model)
    backbone.prepare(3)
    load("dtl")(**config).attach(backbone)
    return backbone


@pytest.mark.parametrize("conv", [False, True])
@pytest.mark.parametrize(("start", "stages"), [(0.0, 3), (0.5, 2), (0.7, 1)])
def test_dtl_in_stages(start: float, stages: int, conv: bool) -> None:
    """A state and a convolution per stage; none where nothing is fed back any more."""
    backbone = swin(start=start, conv=conv)
    sides = [[cast(Any, m) for m in block.side] for block in backbone.blocks]
    assert [len(side) for side in sides] == [0] * (6 - 2 * stages) + [1] * (2 * stages)
    assert [side[0].first for side in sides if side] == [True, False] * stages
    dims = [8, 8, 16, 16, 32, 32][-2 * stages :]
    count = sum(2 * 2 * dim for dim in dims) + conv * sum(9 * dim for dim in dims[::2])
    assert sum(p.numel() for p in added(backbone).values()) == count
    assert load("dtl")(start=start, conv=conv).num_trainable(backbone.shape) == count
    backbone(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(side[0].b.grad.any() for side in sides if side)


def test_dtl_plus_keeps_the_contract() -> None:
    findings = list(check(load("dtl")(conv=True)))
    assert findings and [f for f in findings if not f.holds] == []
