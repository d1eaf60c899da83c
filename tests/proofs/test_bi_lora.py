"""Bi-LoRA, proven."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from torch import Tensor

from petlbench.method import load
from proofs.common import Times, adapt, assert_uniform, initial, tokens
from proofs.test_bi_adaptformer import check_storage, few_bits

SETTINGS = [{"rank": 2, "scale": 0.1}]
MORE = [{}, {"rank": 3, "bits": 3, "scale": 10.0}]
COUNTS = [({}, 1_179_648), ({"rank": 1, "bits": 4}, 36_864)]
SIZE = "rank"
DROPOUT = 0.1
ADDED = tuple(f"attn.layer.qkv.deltas.0.{t}.{m}.weight" for t in "qv" for m in ("down", "up"))
BAD = [("bits", 0, ">= 1 and <= 8"), ("bits", 32, ">= 1 and <= 8")]


def block(
    p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, bits: int = 1, **_: Any
) -> Tensor:
    """W' = W + s Q(B) Q(A) on the q and v thirds, as a dense weight."""
    name = f"vit.blocks.{i}.attn.layer.qkv"
    query, value = (
        few_bits(p[f"{name}.deltas.0.{t}.up.weight"], bits)
        @ few_bits(p[f"{name}.deltas.0.{t}.down.weight"], bits)
        for t in "qv"
    )
    weight = p[f"{name}.weight"] + scale * torch.cat([query, torch.zeros_like(query), value])
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit, qkv=weight)
    return x + mlp(p, i, ln2(p, i, x, vit))


@pytest.mark.parametrize("config", [{}, {"rank": 3, "bits": 4}])
def test_bi_lora_storage(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    check_storage("bi_lora", config, monkeypatch)


def test_bi_lora_size_on_vit_b() -> None:
    """144.4 KiB beside the head."""
    tensors = {f"{i}": torch.empty(32 * 768, device="meta") for i in range(48)}
    assert load("bi_lora")().stored_bytes(tensors) == 1_179_648 // 8 + 48 * 8


def test_bi_lora_initialisation() -> None:
    found = initial("bi_lora")
    assert_uniform(found["down.weight"], 768**-0.5)
    up = torch.cat(found["up.weight"])
    assert up.abs().max() <= 0.002 and up.std().item() == pytest.approx(0.00088, rel=0.02)
    assert not torch.equal(found["down.weight"][0], found["down.weight"][1])  # q and v share none


def test_bi_lora_dropout_place() -> None:
    """On the bottleneck, not on the input; nothing is added to k."""
    update = cast(Any, adapt("bi_lora").blocks[0].attn.linear("qkv").deltas[0])
    x, expected = tokens(), []
    for module in (update.q, update.v):
        module.dropout = Times()
        down, up = (few_bits(m.weight, 1) for m in (module.down, module.up))
        expected.append(3 * (x @ down.T) @ up.T)
    zero = torch.zeros_like(expected[0])
    torch.testing.assert_close(update(x), torch.cat([expected[0], zero, expected[1]], dim=-1))
