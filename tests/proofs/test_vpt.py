"""VPT-deep, proven."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference.vit import Params, Vit, num_prefix, plain
from torch import Tensor

from proofs.common import adapt, added, assert_uniform, attached, initial, tokens

SETTINGS = [{"tokens": 3, "dropout": 0.5}]
MORE = [{}]
FIXED_ENCODER = True
COUNTS = [({"tokens": 1}, 9_216), ({}, 92_160), ({"tokens": 100}, 921_600)]
SIZE = "tokens"
DROPOUT = 0.1
ADDED = ("tokens.0.prompts",)


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """[prefix; P_i; patches]: before block i its own prompts, whatever stood in their place."""
    patches = x[:, -vit.grid[0] * vit.grid[1] :]
    prompts = p[f"vit.blocks.{i}.tokens.0.prompts"].expand(len(x), -1, -1)
    return plain(p, i, torch.cat([x[:, : num_prefix(p)], prompts, patches], dim=1), vit)


def test_vpt_drops_per_sample() -> None:
    """Each image of a batch has its own mask."""
    module = attached(adapt("vpt", {"tokens": 5, "dropout": 0.5}))[0].train()
    prompts = module(tokens(16))[:, 1:6]
    assert len({tuple((sample != 0).flatten().tolist()) for sample in prompts}) == 16


@pytest.mark.parametrize("method", ["vpt", "vpt_shallow"])
def test_vpt_initialisation(method: str) -> None:
    found = initial(method, tokens=50)
    prompts = found["prompts"]
    assert len(prompts) == (12 if method == "vpt" else 1)
    assert_uniform(prompts, 0.0625)  # sqrt(6 / (3 * 16 * 16 + 768))


def test_vpt_initialisation_depends_on_patches_and_width() -> None:
    backbone = adapt("vpt", {"tokens": 400})  # 4 x 4 pixels, 12 channels
    assert_uniform([p.detach() for p in added(backbone).values()], math.sqrt(6 / (3 * 4 * 4 + 12)))
