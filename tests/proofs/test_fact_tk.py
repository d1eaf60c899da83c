"""FacT-TK, proven."""

from __future__ import annotations

import math
from typing import Any

import torch
from reference.vit import Params, Vit
from torch import Tensor

from proofs.common import assert_uniform, assert_zero, initial
from proofs.test_fact_tt import FACTORS, LAYERS, block_of

SETTINGS = [{"rank": 2, "scale": -0.5}]
MORE = [{}, {"rank": 1, "scale": 10.0}, {"rank": 5, "dropout": 0.3}]
COUNTS = [({}, 86_528), ({"rank": 16}, 30_976), ({"rank": 8}, 13_952)]
SIZE = "rank"
DROPOUT = 0.1
SHARED = ("u.weight", "v.weight", "core.c", "core.p")


def trained(p: Params) -> set[str]:
    """Four tensors for the whole model."""
    return {f"{FACTORS}.{t}" for t in SHARED} | {"head.weight", "head.bias"}


def core(p: Params, i: int, layer: str, row: int, column: int) -> Tensor:
    """C x_3 P[:, j]; j counts q, k, v, proj, fc1's and fc2's slices, block after block."""
    dim = p[f"{FACTORS}.u.weight"].shape[1]
    counts = [p[f"vit.blocks.{i}.{n}.weight"].numel() // dim**2 for n in LAYERS]
    where = LAYERS.index(layer)
    j = i * sum(counts) + sum(counts[:where]) + row + column  # one of row and column is zero
    return torch.einsum("uvk,k->vu", p[f"{FACTORS}.core.c"], p[f"{FACTORS}.core.p"][:, j])


def block(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, **_: Any) -> Tensor:
    return block_of(p, i, x, vit, scale, core)


def test_fact_tk_initialisation() -> None:
    found = initial("fact_tk")
    assert {name: [tuple(t.shape) for t in tensors] for name, tensors in found.items()} == {
        "u.weight": [(32, 768)],
        "v.weight": [(768, 32)],
        "core.c": [(32, 32, 32)],
        "core.p": [(32, 144)],
    }
    assert_uniform(found["u.weight"], 768**-0.5)
    assert_zero(found["v.weight"])
    assert_uniform(found["core.c"], math.sqrt(6 / (2 * 32 * 32)))
    assert_uniform(found["core.p"], math.sqrt(6 / (32 + 144)))
