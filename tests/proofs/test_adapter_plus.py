"""Adapter+, proven."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, gelu, linear, ln1, ln2, mhsa, mlp
from torch import Tensor

from proofs.common import adapt, assert_zero, images, initial, last_branches, perturb, tokens
from proofs.test_houlsby import assert_truncated

SETTINGS = [{"hidden": 3}]
MORE = [{}, {"drop_path": 0.0}]
COUNTS = [
    ({}, 165_984),
    ({"hidden": 1}, 12 * (2 * 768 + 1 + 2 * 768)),
    ({"hidden": 32}, 12 * (2 * 32 * 768 + 32 + 2 * 768)),
]
SIZE = "hidden"
TENSORS = ("down.weight", "down.bias", "up.weight", "up.bias", "scale")
ADDED = tuple(f"mlp.out.0.{t}" for t in TENSORS)
BAD = [
    ("drop_path", 1.0, ">= 0 and < 1"),
    ("drop_path", -0.1, ">= 0 and < 1"),
    ("drop_path", float("nan"), "finite"),
]


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """With x' what the block puts out, x' + g * Up(gelu(Down x'))."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    x = x + mlp(p, i, ln2(p, i, x, vit))
    name = f"vit.blocks.{i}.mlp.out.0"
    update = linear(p, f"{name}.up", gelu(linear(p, f"{name}.down", x)))
    return x + p[f"{name}.scale"] * update


def test_adapter_plus_initialisation() -> None:
    found = initial("adapter_plus", hidden=32)
    assert_zero(found["down.bias"] + found["up.bias"])
    assert all(torch.equal(scale, torch.ones(768)) for scale in found["scale"])
    for name in ("down.weight", "up.weight"):
        assert len(found[name]) == 12
        assert_truncated(torch.cat([weight.flatten() for weight in found[name]]), 0.01)


def test_adapter_plus_starts_near_the_backbone() -> None:
    plain = adapt("linear").eval().encode(images())
    near = adapt("adapter_plus").eval().encode(images())
    assert 0 < (near - plain).abs().max() < 0.01


@pytest.mark.parametrize(("config", "rate"), [({}, 0.1), ({"drop_path": 0.25}, 0.25)])
def test_adapter_plus_has_one_rate(config: dict[str, Any], rate: float) -> None:
    """In every block, whatever the ramp of the backbone is."""
    backbone = adapt("adapter_plus", config, drop_path_rate=0.4, depth=3)
    modules = [cast(Any, block.mlp.out[0]) for block in backbone.blocks]
    assert [module.drop_path.drop_prob for module in modules] == [rate] * 3


def test_adapter_plus_draws_its_own_drop_path() -> None:
    """Per image: x' or x' + g * A(x') / keep, with x' = x where the block's branch is dropped."""
    branch = last_branches(adapt("adapter_plus", {"drop_path": 0.25}, drop_path_rate=0.4))[1]
    perturb(branch)
    cast(Any, branch.drop_path).drop_prob = 1.0
    x = tokens(1)
    module = cast(Any, branch.out[0].eval())
    update = (module(x) - x) / 0.75
    branch.train()
    torch.manual_seed(3)
    outputs = branch(x.expand(1000, -1, -1)) - x
    kept = torch.isclose(outputs, update).all(dim=2).all(dim=1)
    assert torch.equal(outputs[~kept], torch.zeros_like(outputs[~kept]))
    assert kept.double().mean().item() == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 1000) ** 0.5)
