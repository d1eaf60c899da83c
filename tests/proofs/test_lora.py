"""LoRA, proven."""

from __future__ import annotations

from typing import Any

import torch
from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from torch import Tensor

from proofs.common import assert_uniform, assert_zero, initial

SETTINGS = [{"rank": 2, "alpha": 5.0}]
MORE = [{}, {"rank": 16, "alpha": 1.0, "dropout": 0.3}]
COUNTS = [({}, 294_912)]
SIZE = "rank"
DROPOUT = 0.0
ADDED = tuple(f"attn.layer.qkv.deltas.0.{t}" for t in ("a_q", "b_q", "a_v", "b_v"))
BAD = [
    ("alpha", 0, "> 0"),
    ("alpha", -1.0, "> 0"),
    ("alpha", float("nan"), "finite"),
    ("alpha", float("inf"), "finite"),
]


def block(
    p: Params, i: int, x: Tensor, vit: Vit, *, rank: int = 8, alpha: float = 8.0, **_: Any
) -> Tensor:
    """W' = W + (alpha / r) B A on the q and v thirds, as a dense weight."""
    name = f"vit.blocks.{i}.attn.layer.qkv"
    query, value = (p[f"{name}.deltas.0.b_{t}"] @ p[f"{name}.deltas.0.a_{t}"] for t in "qv")
    update = torch.cat([query, torch.zeros_like(query), value])
    weight = p[f"{name}.weight"] + alpha / rank * update
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit, qkv=weight)
    return x + mlp(p, i, ln2(p, i, x, vit))


def test_lora_initialisation() -> None:
    found = initial("lora")
    for a in ("a_q", "a_v"):
        assert_uniform(found[a], 768**-0.5)
    assert_zero(found["b_q"] + found["b_v"])
    assert not torch.equal(found["a_q"][0], found["a_v"][0])  # q and v do not share A
    assert found["a_q"][0].shape == (8, 768) and found["b_q"][0].shape == (768, 8)
