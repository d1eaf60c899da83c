"""Adapter, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, linear, ln1, ln2, mhsa, mlp, quick_gelu
from torch import Tensor

from proofs.common import assert_uniform, assert_zero, dropped, initial, tokens

SETTINGS = [{"hidden": 3, "init": "zero_up"}]
MORE = [{}]
COUNTS = [({}, 156_768)]
SIZE = "hidden"
DROPOUT = 0.1
ADDED = tuple(f"mlp.after.0.{t}" for t in ("down.weight", "down.bias", "up.weight", "up.bias"))
BAD = [
    ("init", "identity", "one of 'xavier', 'zero_up'"),
    ("init", True, "one of 'xavier', 'zero_up'"),
]


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """x + A(LS(MLP(LN2 x))), A(u) = u + Up(q(Down u))."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    u = mlp(p, i, ln2(p, i, x, vit))
    name = f"vit.blocks.{i}.mlp.after.0"
    return x + u + linear(p, f"{name}.up", quick_gelu(linear(p, f"{name}.down", u)))


def test_adapter_acts_on_a_dropped_output() -> None:
    """Outside drop-path: what the adapter makes of zero still reaches the stream."""
    branch = dropped("adapter", {})
    adapter, x = cast(Any, branch.after[0]), tokens()
    of_zero = quick_gelu(adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias
    torch.testing.assert_close(branch(x), x + of_zero)
    assert of_zero.abs().max() > 0.01


@pytest.mark.parametrize("init", ["xavier", "zero_up"])
def test_adapter_initialisation(init: str) -> None:
    found = initial("adapter", init=init, hidden=16)
    xavier = math.sqrt(6 / (768 + 16))
    assert_uniform(found["down.weight"], xavier)
    biases = torch.cat(found["down.bias"])
    assert biases.std().item() == pytest.approx(1e-6, rel=0.3) and biases.abs().max() < 1e-5
    if init == "zero_up":
        assert_zero(found["up.weight"] + found["up.bias"])
    else:
        assert_uniform(found["up.weight"], xavier)
        assert torch.cat(found["up.bias"]).std().item() == pytest.approx(1e-6, rel=0.1)
