"""FacT-TT, proven; what it shares with FacT-TK, for both."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.vit import Params, Vit, depth, gelu, layer_scale, linear, ln1, ln2, mhsa
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor

from petlbench.backbones import adopt
from petlbench.errors import UsageError
from petlbench.method import load
from proofs.common import (
    Times,
    adapt,
    assert_uniform,
    assert_zero,
    initial,
    perturb,
)

SETTINGS = [{"rank": 2, "scale": -0.5}]
MORE = [{}, {"rank": 1, "scale": 10.0}, {"rank": 5, "dropout": 0.3}]
COUNTS = [
    ({}, 61_440),
    ({"rank": 8}, 21_504),
    ({"rank": 4}, 8_448),
    ({"rank": 1}, 1_680),
]
SIZE = "rank"
DROPOUT = 0.1
LAYERS = ("attn.layer.qkv", "attn.layer.proj", "mlp.layer.fc1", "mlp.layer.fc2")
FACTORS = "vit.blocks.0.attn.layer.qkv.deltas.0"  # under the first layer that has them


def trained(p: Params) -> set[str]:
    cores = {f"vit.blocks.{i}.{n}.deltas.0.core.weight" for i in range(depth(p)) for n in LAYERS}
    factors = {f"{FACTORS}.{t}.weight" for t in "uv"}
    return cores | factors | {"head.weight", "head.bias"}


def core(p: Params, i: int, layer: str, row: int, column: int) -> Tensor:
    """Sigma of the slice of W that maps input vector `column` to output vector `row`: (r, r)."""
    r = len(p[f"{FACTORS}.u.weight"])
    whole = p[f"vit.blocks.{i}.{layer}.deltas.0.core.weight"]
    return whole[row * r : (row + 1) * r, column * r : (column + 1) * r]


def dense(p: Params, i: int, layer: str, scale: float, sigma: Any) -> Tensor:
    """W + s V Sigma U, slice by slice."""
    weight = p[f"vit.blocks.{i}.{layer}.weight"]
    u, v = (p[f"{FACTORS}.{t}.weight"] for t in "uv")  # (r, D), (D, r)
    dim = u.shape[1]
    rows, columns = (size // dim for size in weight.shape)
    update = [
        torch.cat([v @ sigma(p, i, layer, row, column) @ u for column in range(columns)], dim=1)
        for row in range(rows)
    ]
    return weight + scale * torch.cat(update)


def block_of(p: Params, i: int, x: Tensor, vit: Vit, scale: float, sigma: Any) -> Tensor:
    name = f"vit.blocks.{i}"
    p = {**p} | {f"{name}.{n}.weight": dense(p, i, n, scale, sigma) for n in LAYERS}
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    y = linear(p, f"{name}.mlp.layer.fc1", ln2(p, i, x, vit))
    y = linear(p, f"{name}.mlp.layer.fc2", gelu(y))
    return x + layer_scale(p, f"{name}.mlp.layer_scale", y)


def block(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, **_: Any) -> Tensor:
    return block_of(p, i, x, vit, scale, core)


def test_fact_tt_initialisation() -> None:
    found = initial("fact_tt")
    assert len(found["u.weight"]) == len(found["v.weight"]) == 1  # shared by all layers
    assert_uniform(found["u.weight"], 768**-0.5)
    assert_zero(found["v.weight"])
    assert found["v.weight"][0].shape == (768, 16)
    cores = found["core.weight"]
    assert [tuple(core.shape) for core in cores[:4]] == [(48, 16), (16, 16), (64, 16), (16, 64)]
    assert len(cores) == 4 * 12
    assert_uniform([core for core in cores if core.shape[1] == 16], 16**-0.5)
    assert_uniform([core for core in cores if core.shape[1] == 64], 64**-0.5)


@pytest.mark.parametrize("method", ["fact_tt", "fact_tk"])
def test_fact_is_one_tensor_of_slices(method: str) -> None:
    """Every slice of every weight changes, and all changes lie in one space of r dimensions."""
    backbone = adapt(method, {"rank": 2})
    perturb(backbone)
    before = {n: layer.weight.clone() for n, layer in backbone.layers.items()}
    biases = {n: layer.bias for n, layer in backbone.layers.items()}
    backbone.eval().merge()
    changed = []
    for name, layer in backbone.layers.items():
        change = layer.weight - before[name]
        if name.rpartition(".")[2] in ("qkv", "proj", "fc1", "fc2") and change.dim() == 2:
            tiles = change.unfold(0, 12, 12).unfold(1, 12, 12).reshape(-1, 12, 12)
            assert tiles.flatten(1).norm(dim=1).min() > 1e-6
            changed.extend(tiles)
        assert biases[name] is layer.bias
    assert len(changed) == 2 * (3 + 1 + 2 + 2)  # an MLP of twice the width
    for direction in (1, 2):
        spanned = torch.cat(changed, dim=2 - direction)
        assert torch.linalg.matrix_rank(spanned, rtol=1e-9) == 2


@pytest.mark.parametrize("method", ["fact_tt", "fact_tk"])
@pytest.mark.parametrize(("layer", "a", "b"), [("qkv", 1, 3), ("fc1", 1, 2), ("fc2", 2, 1)])
def test_fact_drops_after_the_core(method: str, layer: str, a: int, b: int) -> None:
    """On the r numbers of each slice that V reads."""
    module: Any = adapt(method, {"rank": 2}).blocks[1].linear(layer).deltas[0]
    perturb(module)
    module.dropout = Times()
    seen: list[Tensor] = []
    module.dropout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    x = torch.randn(4, 7, a * 12, dtype=torch.float64)
    y = module(x)
    vectors = x.unflatten(-1, (a, 12)) @ module.u.weight.T
    torch.testing.assert_close(seen[0], module.core(vectors.flatten(-2)))
    assert seen[0].shape == (4, 7, 2 * b)
    for number, vector in enumerate(y.split(12, dim=-1)):
        read = 3 * seen[0][..., 2 * number : 2 * number + 2]
        torch.testing.assert_close(vector, read @ module.v.weight.T)


@pytest.mark.parametrize("method", ["fact_tt", "fact_tk"])
def test_fact_refuses_what_cannot_be_cut(method: str) -> None:
    with pytest.raises(UsageError, match="fc1 maps 12 to 30 channels"):
        load(method)().require(adapt("linear", mlp_ratio=2.5).shape)
    swin = SwinTransformer(
        img_size=32, patch_size=2, embed_dim=8, depths=(1, 1), num_heads=(2, 2), window_size=4
    )
    with pytest.raises(UsageError, match="differ in width"):
        load(method)().require(adopt(swin).shape)
