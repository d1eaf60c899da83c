"""Partial fine-tuning, proven."""

from __future__ import annotations

from dataclasses import replace

import pytest
from reference.vit import Params, depth, plain

from petlbench.backbone import trained_parameters
from petlbench.check import tiny
from petlbench.errors import UsageError
from petlbench.method import load
from proofs.common import adapt, base

block = plain
SETTINGS = [{"blocks": 1}]
FIXED_ENCODER = True
SIZE = "blocks"
BLOCK = 4 * (768 * 768 + 768) + 2 * 4 * 768 * 768 + 5 * 768 + 4 * 768  # MHSA, MLP, two norms
COUNTS = [
    ({}, 7_089_408),
    ({}, BLOCK + 2 * 768),
    ({"blocks": 4}, 4 * BLOCK + 2 * 768),
    ({"blocks": 12}, 12 * BLOCK + 2 * 768),
]
FINAL = {f"{name}.{t}" for name in ("head", "vit.norm", "vit.fc_norm") for t in ("weight", "bias")}


def trained(p: Params) -> set[str]:
    last = f"vit.blocks.{depth(p) - 1}."
    return {name for name in p if name.startswith(last) or name in FINAL}


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_partial_trains_the_last_blocks(number: int) -> None:
    """And the stages in front of them compute the same in every epoch."""
    backbone = adapt("partial", {"blocks": number}, depth=4, drop_path_rate=0.3)
    names = {name.split(".")[2] for name in trained_parameters(backbone) if ".blocks." in name}
    assert names == {str(i) for i in range(4 - number, 4)}
    assert backbone.frozen_stages() == 1 + 4 - number


@pytest.mark.parametrize(("blocks", "merging"), [(1, False), (2, True)])
def test_partial_on_swin(blocks: int, merging: bool) -> None:
    """Two blocks a stage: the second from the end begins with the patch merging."""
    backbone = tiny("Swin")
    load("partial")(blocks=blocks).attach(backbone)
    names = trained_parameters(backbone)
    assert any(".merging." in name for name in names) is merging
    assert any("relative_position_bias_table" in name for name in names)


def test_partial_refuses() -> None:
    shape = base().shape
    with pytest.raises(UsageError, match="has 12 blocks, not 13"):
        load("partial")(blocks=13).require(shape)
    layers = tuple(layer for layer in shape.layers if layer.name != "norm")
    with pytest.raises(UsageError, match="its norm"):
        load("partial")().require(replace(shape, layers=layers))
