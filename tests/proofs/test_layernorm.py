"""LayerNorm tuning, proven."""

from __future__ import annotations

from dataclasses import replace

import pytest
from reference.vit import Params, plain

from petlbench.errors import UsageError
from petlbench.method import load
from proofs.common import base

block = plain
SETTINGS = [{}]
COUNTS = [({}, 38_400), ({}, 25 * 2 * 768)]
NORMS = ("attn.norm", "mlp.norm", "vit.norm", "vit.norm_pre", "vit.fc_norm")


def trained(p: Params) -> set[str]:
    norms = {name for name in p if name.rpartition(".")[0].endswith(NORMS)}
    return {"head.weight", "head.bias"} | norms


def test_layernorm_needs_a_layernorm() -> None:
    with pytest.raises(UsageError, match="no LayerNorm"):
        load("layernorm")().require(replace(base().shape, num_norms=0))
