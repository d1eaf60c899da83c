"""LoRA with shared factors, proven."""

from __future__ import annotations

from typing import Any

import torch
from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from torch import Tensor

from proofs.common import (
    Times,
    adapt,
    assert_uniform,
    assert_zero,
    attached,
    initial,
    perturb,
    tokens,
)

SETTINGS = [{"rank": 2}]
MORE = [{}, {"rank": 16, "dropout": 0.3}]
COUNTS = [({}, 294_912), ({"rank": 1}, 36_864)]
SIZE = "rank"
DROPOUT = 0.1
ADDED = ("attn.layer.qkv.deltas.0.a", "attn.layer.qkv.deltas.0.b")


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """W' = W + B A on all three thirds, as a dense weight."""
    name = f"vit.blocks.{i}.attn.layer.qkv"
    weight = p[f"{name}.weight"] + p[f"{name}.deltas.0.b"] @ p[f"{name}.deltas.0.a"]
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit, qkv=weight)
    return x + mlp(p, i, ln2(p, i, x, vit))


def test_lora_shared_initialisation() -> None:
    found = initial("lora_shared")
    assert_uniform(found["a"], 768**-0.5)
    assert_zero(found["b"])
    assert found["a"][0].shape == (8, 768) and found["b"][0].shape == (3 * 768, 8)


def test_lora_shared_adapts_the_key() -> None:
    """All of q, k and v receive the update, unlike in `lora`."""
    backbone = adapt("lora_shared")
    perturb(backbone)
    update = attached(backbone)[0].eval()(tokens())
    assert all(third.abs().min() > 0 for third in update.chunk(3, dim=-1))


def test_lora_shared_drops_its_input() -> None:
    module = attached(adapt("lora_shared"))[0]
    perturb(module)
    x = tokens()
    module.dropout = Times()
    torch.testing.assert_close(module(x), 3 * x @ module.a.T @ module.b.T)
    seen: list[Tensor] = []
    module.dropout.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    module(x)
    assert seen[0] is x  # a linear map cannot tell where a constant factor acts
