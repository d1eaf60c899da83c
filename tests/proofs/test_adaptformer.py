"""AdaptFormer, proven."""

from __future__ import annotations

from typing import Any, cast

import torch
from reference.vit import Params, Vit, linear, ln1, ln2, mhsa, mlp
from torch import Tensor

from proofs.common import assert_uniform, assert_zero, dropped, initial, tokens

SETTINGS = [{"hidden": 3, "scale": 10.0, "dropout": 0.5}]
MORE = [{}]
COUNTS = [({}, 156_768), ({"hidden": 64}, 1_189_632)]
SIZE = "hidden"
DROPOUT = 0.1
ADDED = tuple(
    f"mlp.parallel_residual.0.{t}" for t in ("down.weight", "down.bias", "up.weight", "up.bias")
)


def block(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 0.1, **_: Any) -> Tensor:
    """x + LS(MLP(LN2 x)) + s Up(ReLU(Down x)): the bottleneck reads x, not LN2 x."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    name = f"vit.blocks.{i}.mlp.parallel_residual.0"
    down = linear(p, f"{name}.down", x)
    down = torch.where(down > 0, down, 0)
    return x + mlp(p, i, ln2(p, i, x, vit)) + scale * linear(p, f"{name}.up", down)


def test_adaptformer_survives_drop_path() -> None:
    """Outside drop-path and LayerScale, reading x before LN2."""
    branch = dropped("adaptformer", {"scale": 10.0})
    bottleneck, x = cast(Any, branch.parallel_residual[0]), tokens()
    expected = x + 10 * bottleneck.up(torch.relu(bottleneck.down(x)))
    torch.testing.assert_close(branch(x), expected)
    of_normed = x + 10 * bottleneck.up(torch.relu(bottleneck.down(branch.norm(x))))
    assert not torch.allclose(branch(x), of_normed)


def test_adaptformer_initialisation() -> None:
    found = initial("adaptformer")
    assert_uniform(found["down.weight"], 768**-0.5)  # Kaiming, a = sqrt(5): sqrt(6 / (6 * 768))
    assert_zero(found["down.bias"] + found["up.weight"] + found["up.bias"])
