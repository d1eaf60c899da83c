"""MLP head, proven."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference.vit import Params, Vit, classify, depth, embed, layer_norm, linear, plain
from torch import Tensor

from proofs.common import Times, adapt, assert_uniform, assert_zero, attached, initial, perturb

SETTINGS = [{"hidden_layers": 1}]
MORE = [{}, {"hidden_layers": 3, "dropout": 0.5}]
FIXED_ENCODER = True
COUNTS = [({}, 1_184_256), ({"hidden_layers": 1}, 768 * 768 + 3 * 768)]
SIZE = "hidden_layers"
DROPOUT = 0.1
TENSORS = ("linear.weight", "linear.bias", "norm.weight", "norm.bias")


def hidden_layers(p: Params) -> int:
    return sum(name.startswith("features.") for name in p) // len(TENSORS)


def trained(p: Params) -> set[str]:
    names = {f"features.{i}.{t}" for i in range(hidden_layers(p)) for t in TENSORS}
    return names | {"head.weight", "head.bias"}


def logits(p: Params, images: Tensor, vit: Vit, *, hidden_layers: int = 2, **_: Any) -> Tensor:
    """The head on LN(relu(W f + b)), repeated; f is the pooled feature."""
    x = embed(p, images, vit)
    for i in range(depth(p)):
        x = plain(p, i, x, vit)
    unit = torch.eye(x.shape[-1], dtype=x.dtype)
    f = classify({**p, "head.weight": unit, "head.bias": 0 * unit[0]}, x, vit)
    for i in range(hidden_layers):
        u = linear(p, f"features.{i}.linear", f)
        f = layer_norm(p, f"features.{i}.norm", u * (u > 0), 1e-5)
    return linear(p, "head", f)


def test_mlp_head_dropout_place() -> None:
    """Behind the normalisation."""
    backbone = adapt("mlp_head", {"hidden_layers": 1})
    perturb(backbone)
    module = attached(backbone)[0]
    module.dropout = Times()
    f = torch.randn(5, 12, dtype=torch.float64)
    expected = 3 * module.norm(torch.relu(module.linear(f)))
    torch.testing.assert_close(module(f, None), expected)


def test_mlp_head_initialisation() -> None:
    found = initial("mlp_head")
    for weight in found["linear.weight"]:
        assert weight.std().item() == pytest.approx(math.sqrt(2 / 768), rel=0.01)
        assert abs(weight.mean().item()) < 5 * math.sqrt(2 / 768) / 768
        assert weight.abs().max() > 4 * math.sqrt(2 / 768)  # normal, not uniform
    assert_uniform(found["linear.bias"], 768**-0.5)
    assert all(torch.equal(weight, torch.ones(768)) for weight in found["norm.weight"])
    assert_zero(found["norm.bias"])


def test_mlp_head_leaves_the_blocks_frozen() -> None:
    """An image has one feature: everything in front of the pooling can be computed once."""
    backbone = adapt("mlp_head", drop_path_rate=0.4)
    assert backbone.frozen_stages() == 1 + len(backbone.blocks)
