"""Mona, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, gelu, layer_norm, linear, ln1, ln2, mhsa, mlp, num_prefix
from torch import Tensor

from proofs.common import Times, adapt, assert_uniform, assert_zero, dropped, initial, tokens

SETTINGS = [{"hidden": 3}]
MORE = [{}, {"hidden": 5, "dropout": 0.3}]
COUNTS = [({}, 24 * 111_872), ({}, 2_684_928)]
SIZE = "hidden"
DROPOUT = 0.1
LINEARS = [f"{layer}.{t}" for layer in ("down", "mix", "up", "norm") for t in ("weight", "bias")]
CONVOLUTIONS = [f"depthwise.{i}.{t}" for i in range(3) for t in ("weight", "bias")]
TENSORS = [*LINEARS, *CONVOLUTIONS, "gamma", "gamma_x"]
ADDED = tuple(f"{branch}.out.0.{t}" for branch in ("attn", "mlp") for t in TENSORS)


def depthwise(p: Params, name: str, u: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    """y[r, c] = b + sum over taps of w[dr, dc] u[r + dr, c + dc], channel by channel.

    Outside the grid u is zero; a prefix token has no neighbours.
    """
    weight = p[f"{name}.weight"][:, 0]  # (h, size, size)
    reach, (rows, columns) = weight.shape[-1] // 2, grid
    alone = u[:, :prefix] * weight[:, reach, reach]
    patches = u[:, prefix:].reshape(len(u), rows, columns, -1)
    outputs = []
    for r in range(rows):
        for c in range(columns):
            y = torch.zeros_like(patches[:, 0, 0])
            for i in range(max(0, r - reach), min(rows, r + reach + 1)):
                for j in range(max(0, c - reach), min(columns, c + reach + 1)):
                    y = y + weight[:, i - r + reach, j - c + reach] * patches[:, i, j]
            outputs.append(y)
    return torch.cat([alone, torch.stack(outputs, dim=1)], dim=1) + p[f"{name}.bias"]


def cognitive(p: Params, name: str, x: Tensor, vit: Vit) -> Tensor:
    normed = layer_norm(p, f"{name}.norm", x, 1e-5)  # PyTorch's default, not the backbone's
    u = linear(p, f"{name}.down", p[f"{name}.gamma"] * normed + p[f"{name}.gamma_x"] * x)
    several = [depthwise(p, f"{name}.depthwise.{i}", u, num_prefix(p), vit.grid) for i in range(3)]
    t = u + (several[0] + several[1] + several[2]) / 3
    return linear(p, f"{name}.up", gelu(t + linear(p, f"{name}.mix", t)))


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """After each residual sum, x + A(x)."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    x = x + cognitive(p, f"vit.blocks.{i}.attn.out.0", x, vit)
    x = x + mlp(p, i, ln2(p, i, x, vit))
    return x + cognitive(p, f"vit.blocks.{i}.mlp.out.0", x, vit)


def test_mona_initialisation() -> None:
    """As PyTorch makes them, so not zero at the end; gamma 1e-6, gamma_x 1."""
    found = initial("mona")
    assert all(torch.equal(g, torch.full((768,), 1e-6)) for g in found["gamma"])
    assert all(torch.equal(g, torch.ones(768)) for g in [*found["gamma_x"], *found["norm.weight"]])
    assert_zero(found["norm.bias"])
    for layer, inputs in (("down", 768), ("mix", 64), ("up", 64)):
        assert_uniform(found[f"{layer}.weight"], inputs**-0.5)
        assert_uniform(found[f"{layer}.bias"], inputs**-0.5)
    sizes = [weight.shape for weight in found["weight"][:3]]
    assert sizes == [(64, 1, 3, 3), (64, 1, 5, 5), (64, 1, 7, 7)]
    for i, size in enumerate((3, 5, 7)):
        assert_uniform(found["weight"][i::3], 1 / size)
        assert_uniform(found["bias"][i::3], 1 / size)


def test_mona_acts_after_a_dropped_branch() -> None:
    """On the residual stream: a dropped MLP leaves x + A(x)."""
    branch = dropped("mona", {"hidden": 4})
    x = tokens()
    torch.testing.assert_close(branch(x), branch.out[0](x))
    assert (branch(x) - x).abs().max() > 0.01


def test_mona_dropout_place() -> None:
    """On the activated bottleneck."""
    module = cast(Any, adapt("mona", {"hidden": 4}).blocks[0].attn.out[0])
    x = tokens()
    activated: list[Tensor] = []
    module.dropout = Times()
    module.dropout.register_forward_pre_hook(lambda _, inputs: activated.append(inputs[0]))
    torch.testing.assert_close(module(x), x + module.up(3 * activated[0]))
    assert activated[0].min().item() == pytest.approx(-0.17, abs=0.05)  # the minimum of GELU
    assert activated[0].shape[-1] == 4 and math.isfinite(activated[0].sum().item())
