"""VQT, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import (
    Params,
    Vit,
    depth,
    embed,
    layer_scale,
    linear,
    ln1,
    ln2,
    mlp,
    optional_norm,
    plain,
)
from torch import Tensor

from petlbench.backbones import adopt
from petlbench.check import MODELS
from petlbench.errors import UsageError
from petlbench.method import load
from proofs.common import Times, adapt, assert_uniform, images, initial, perturb, tokens

SETTINGS = [{"tokens": 2}]
MORE = [{}, {"tokens": 5, "dropout": 0.3}]
COUNTS = [({}, 9_216), ({"tokens": 10}, 92_160)]
SIZE = "tokens"
DROPOUT = 0.1
FIXED_ENCODER = True
ADDED = ("side.0.queries",)


def query_attention(p: Params, i: int, z: Tensor, memory: Tensor, heads: int) -> Tensor:
    """Token by token and head by head: softmax(q . k / sqrt(width)) over memory, times v."""
    name = f"vit.blocks.{i}.attn.layer"
    dim = z.shape[-1]
    weight, width = p[f"{name}.qkv.weight"], dim // heads
    bias = p.get(f"{name}.qkv.bias", z.new_zeros(3 * dim))
    q = torch.einsum("btd,od->bto", z, weight[:dim]) + bias[:dim]
    k = torch.einsum("bnd,od->bno", memory, weight[dim : 2 * dim]) + bias[dim : 2 * dim]
    v = torch.einsum("bnd,od->bno", memory, weight[2 * dim :]) + bias[2 * dim :]
    outputs = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = torch.einsum("btc,bnc->btn", q[..., part], k[..., part]) / math.sqrt(width)
        exponentials = scores.exp()
        shares = exponentials / exponentials.sum(-1, keepdim=True)
        outputs.append(torch.einsum("btn,bnc->btc", shares, v[..., part]))
    return linear(p, f"{name}.proj", torch.cat(outputs, dim=-1))


def unit(f: Tensor) -> Tensor:
    return f / f.pow(2).sum(1, keepdim=True).sqrt()


def logits(p: Params, images: Tensor, vit: Vit, **_: Any) -> Tensor:
    """The plain encoder; beside each block its queries; the head over all of them."""
    x, found = embed(p, images, vit), []
    for i in range(depth(p)):
        q = p[f"vit.blocks.{i}.side.0.queries"].expand(len(x), -1, -1)
        attended = query_attention(p, i, ln1(p, i, q, vit), ln1(p, i, x, vit), vit.heads)
        q = q + layer_scale(p, f"vit.blocks.{i}.attn.layer_scale", attended)
        q = q + mlp(p, i, ln2(p, i, q, vit))
        found.append(unit(q.flatten(1)))
        x = plain(p, i, x, vit)
    x = optional_norm(p, "vit.norm", x, vit.eps)
    patches = vit.grid[0] * vit.grid[1]
    feature = x[:, 0] if vit.pool == "token" else x[:, -patches:].sum(1) / patches
    feature = optional_norm(p, "vit.fc_norm", feature, vit.eps)
    return linear(p, "head", torch.cat([unit(feature), *found], dim=1))


def test_vqt_initialisation() -> None:
    assert_uniform(initial("vqt", tokens=10)["queries"], math.sqrt(6 / (3 * 16 * 16 + 768)))


def test_vqt_head_reads_every_block() -> None:
    head = adapt("vqt", {"tokens": 3}).head
    assert head.weight.shape == (3, 12 + 2 * 3 * 12)


def test_vqt_leaves_the_backbone_as_it_is() -> None:
    """Tokens pass as before, and no gradient reaches them."""
    backbone, frozen = adapt("vqt", drop_path_rate=0.5).train(), adapt("linear").eval()
    x = frozen.embed(images())
    for block, plain_block in zip(backbone.blocks, frozen.blocks, strict=True):
        y, _ = block(x)
        x, _ = plain_block(x)
        assert torch.equal(y, x) and not y.requires_grad


def test_vqt_is_no_part_of_itself() -> None:
    """The block that the queries read is not registered below them."""
    names = [name for name, _ in adapt("vqt").blocks[0].side.named_parameters()]
    assert names == ["0.queries"]


def test_vqt_with_normalised_queries_and_keys() -> None:
    """A query equal to a token finds what that token's own attention finds."""
    backbone = adapt("vqt", {"tokens": 7}, qk_norm=True).eval()
    perturb(backbone)
    block = backbone.blocks[0]
    module, x = cast(Any, block.side[0]), tokens(1)
    module.queries.data = x[0].clone()
    y, state = block(x)
    torch.testing.assert_close(state[0], y)


def test_vqt_dropout_place() -> None:
    """On the queries, before the block."""
    backbone = adapt("vqt").eval()
    module, x = cast(Any, backbone.blocks[0].side[0]), tokens()
    module.queries.data.mul_(3)
    expected = module(x, x, None)[1][0]
    module.queries.data.div_(3)
    module.dropout = Times()
    torch.testing.assert_close(module(x, x, None)[1][0], expected)


def test_vqt_refuses_windows() -> None:
    shape = adopt(MODELS["Swin"](num_classes=0)).shape
    with pytest.raises(UsageError, match="within windows"):
        load("vqt")().require(shape)
