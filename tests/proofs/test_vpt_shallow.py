"""VPT-shallow, proven."""

from __future__ import annotations

from typing import Any

from reference.vit import Params, Vit, plain
from torch import Tensor

from proofs import test_vpt

SETTINGS = [{"tokens": 3}]
MORE = [{}]
FIXED_ENCODER = True
COUNTS = [({"tokens": 1}, 768), ({}, 7_680), ({"tokens": 50}, 38_400)]
SIZE = "tokens"
DROPOUT = 0.0


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """Prompts before the first block; their outputs go on through the others."""
    return test_vpt.block(p, i, x, vit) if i == 0 else plain(p, i, x, vit)


def trained(p: Params) -> set[str]:
    return {"head.weight", "head.bias", "vit.blocks.0.tokens.0.prompts"}
