"""Convpass-attn, proven."""

from __future__ import annotations

from typing import Any

from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from torch import Tensor

from proofs.test_convpass import BYPASS, conv_bypass

SETTINGS = [{"hidden": 2, "scale": 10.0, "init": "identity"}]
MORE = [{}]
COUNTS = [({}, 163_776)]
SIZE = "hidden"
DROPOUT = 0.1
ADDED = tuple(f"attn.parallel.0.{t}" for t in BYPASS)


def block(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, **_: Any) -> Tensor:
    """The bypass of MHSA only."""
    z = ln1(p, i, x, vit)
    bypass = conv_bypass(p, f"vit.blocks.{i}.attn.parallel.0", z, vit)
    x = x + mhsa(p, i, z, vit) + scale * bypass
    return x + mlp(p, i, ln2(p, i, x, vit))
