"""DiffFit, proven."""

from __future__ import annotations

from typing import Any, cast

import torch
from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from torch import Tensor

from proofs.common import adapt, images, initial, last_branches, perturb, tokens

SETTINGS = [{}]
COUNTS = [({}, 140_544), ({}, 102_912 + 25 * 768 + 24 * 768)]


def trained(p: Params) -> set[str]:
    """Biases, LayerNorms (vectors called weight) and the scales."""
    vectors = {name for name in p if name.endswith(".weight") and p[name].dim() == 1}
    return {"head.weight", *vectors, *(name for name in p if name.endswith((".bias", "s.0.gamma")))}


def block(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """x + g * MHSA(LN1 x), then x + g' * MLP(LN2 x)."""
    name = f"vit.blocks.{i}"
    x = x + p[f"{name}.attn.layer.proj.weights.0.gamma"] * mhsa(p, i, ln1(p, i, x, vit), vit)
    return x + p[f"{name}.mlp.layer.fc2.weights.0.gamma"] * mlp(p, i, ln2(p, i, x, vit))


def test_difffit_starts_from_the_backbone() -> None:
    gammas = initial("difffit")["gamma"]
    assert len(gammas) == 24 and all(torch.equal(g, torch.ones(768)) for g in gammas)
    backbone, plain = adapt("difffit").eval(), adapt("linear").eval()
    assert torch.equal(backbone.encode(images()), plain.encode(images()))


def test_difffit_is_inside_drop_path() -> None:
    """A dropped branch adds nothing, whatever its scale and bias are."""
    branch = last_branches(adapt("difffit", drop_path_rate=0.4, init_values=0.1))[1].train()
    perturb(branch)
    cast(Any, branch.drop_path).drop_prob = 1.0
    assert torch.equal(branch(tokens()), tokens())


def test_difffit_without_biases() -> None:
    """A layer without bias gets none, or the scale could not be merged."""
    backbone = adapt("difffit", proj_bias=False)
    perturb(backbone)
    expected = backbone.eval()(images())
    backbone.merge()
    torch.testing.assert_close(backbone(images()), expected)
