"""Every method computes its formula: outputs and gradients against an independent float64 one."""

from __future__ import annotations

import math
from typing import Any

import proofs
import pytest
import torch
from reference.vit import Vit
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from petlbench.backbone import Backbone, attached_modules, trained_parameters
from petlbench.backbones.vit import ViT
from petlbench.errors import UsageError
from petlbench.method import load

CLASSES = 3

# What timm is asked for. The grids are not square where rows and columns could be mixed up.
MODELS: dict[str, dict[str, Any]] = {
    "cls": {"img_size": (12, 8), "patch_size": 4},
    "registers": {
        "img_size": 12,
        "patch_size": 4,
        "reg_tokens": 4,
        "init_values": 0.1,
        "no_embed_class": True,
    },
    "registers_with_positions": {
        "img_size": (4, 8),
        "patch_size": 2,
        "reg_tokens": 2,
        "init_values": 0.1,
    },
    "oblong_patches": {"img_size": (8, 20), "patch_size": (4, 5), "mlp_ratio": 1.5, "depth": 1},
    "average": {"img_size": (8, 12), "patch_size": 4, "global_pool": "avg", "init_values": 0.1},
    "average_without_cls": {
        "img_size": (12, 8),
        "patch_size": 4,
        "global_pool": "avg",
        "class_token": False,
        "qkv_bias": False,
    },
    "clip": {
        "img_size": (8, 12),
        "patch_size": 4,
        "pre_norm": True,
        "embed_dim": 9,
        "num_heads": 3,
    },
}

# Each method on every model with settings that are not the default, and on one model with the
# defaults, which the reference states a second time, and others.
SETTINGS = proofs.every("SETTINGS")
MORE = proofs.every("MORE")
CASES = [(model, *case) for model in MODELS for case in SETTINGS]
CASES += [("registers", *case) for case in MORE if case not in SETTINGS]


def build(model: dict[str, Any]) -> tuple[Backbone, Vit]:
    options = {"embed_dim": 12, "depth": 2, "num_heads": 2, "mlp_ratio": 2.0} | model
    backbone = ViT(VisionTransformer(**options, num_classes=5))
    size, patch = (
        value if isinstance(value, tuple) else (value, value)
        for value in (options["img_size"], options["patch_size"])
    )
    vit = Vit(
        patch=patch,
        grid=(size[0] // patch[0], size[1] // patch[1]),
        heads=options["num_heads"],
        pool=options.get("global_pool", "token"),
    )
    return backbone, vit


def adapt(backbone: Backbone, method: str, settings: dict[str, Any]) -> None:
    """Attach and calibrate, as a run does; a method that refuses the model is not tested on it."""
    built = load(method)(**settings)
    try:
        built.require(backbone.shape)
    except UsageError as error:
        pytest.skip(str(error))
    backbone.prepare(CLASSES)
    built.attach(backbone)
    size = backbone.shape.image_size
    generator = torch.Generator().manual_seed(4)
    pixels = torch.randn(12, 3, *size, generator=generator).split(12)
    built.calibrate(backbone, lambda _: zip(pixels, [torch.arange(12) % CLASSES], strict=True))


def attached_buffers(backbone: Backbone) -> dict[str, Tensor]:
    own = {id(b) for module in attached_modules(backbone) for b in module.buffers(recurse=False)}
    return {name: b for name, b in backbone.named_buffers() if id(b) in own}


def gradients_of(
    logits: Tensor, weights: Tensor, parameters: dict[str, Tensor]
) -> dict[str, Tensor]:
    loss = (torch.sin(logits) * weights).sum()  # not linear: an error of the logits reaches all
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    return dict(zip(parameters, gradients, strict=True))


def label(value: object) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={setting}" for key, setting in value.items()) or "default"
    return str(value)


@pytest.mark.parametrize(("model", "method", "settings"), CASES, ids=label)
def test_outputs_and_gradients(model: str, method: str, settings: dict[str, Any]) -> None:
    """At random values of all parameters, so that no zero initialisation hides a term."""
    torch.manual_seed(0)
    backbone, vit = build(MODELS[model])
    frozen_names = {name for name, _ in backbone.named_parameters()}
    adapt(backbone, method, settings)
    backbone.double().eval()
    with torch.no_grad():
        for parameter in backbone.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    height, width = (n * size for n, size in zip(vit.grid, vit.patch, strict=True))
    images = torch.randn(3, 3, height, width, dtype=torch.float64)
    weights = torch.randn(3, CLASSES, dtype=torch.float64)

    tensors = {name: p.detach().clone() for name, p in backbone.named_parameters()}
    buffers = attached_buffers(backbone)  # what it looked up
    trained = trained_parameters(backbone)
    assert trained.keys() == proofs.trained(method, tensors)
    assert tensors.keys() - trained.keys() <= frozen_names  # what is added trains
    wanted = {name: tensors[name].requires_grad_(True) for name in trained}

    logits = backbone(images)
    expected = proofs.logits(method, tensors | buffers, images, vit, **settings)
    assert expected.shape == (3, CLASSES)
    torch.testing.assert_close(logits, expected, rtol=1e-9, atol=1e-10)
    gradients = gradients_of(logits, weights, dict(trained))
    for name, right in gradients_of(expected, weights, wanted).items():
        atol = 1e-10 * max(1.0, right.abs().max().item())
        assert torch.allclose(gradients[name], right, rtol=1e-9, atol=atol), f"gradient of {name}"


@pytest.mark.parametrize("method", sorted(proofs.PROOFS))
def test_every_part_of_the_reference_counts(method: str) -> None:
    """Each tensor of the reference reaches its output: a term left out there would be seen."""
    torch.manual_seed(0)
    backbone, vit = build(MODELS["registers_with_positions"])
    adapt(backbone, method, {})
    backbone.double()
    p = {
        name: (value + 0.3 * torch.randn_like(value)).detach().requires_grad_(True)
        for name, value in backbone.named_parameters()
    }
    buffers = attached_buffers(backbone)
    output = proofs.logits(method, p | buffers, torch.randn(2, 3, 4, 8, dtype=torch.float64), vit)
    gradients = torch.autograd.grad(output.sin().sum(), list(p.values()))
    assert [name for name, g in zip(p, gradients, strict=True) if not g.any()] == []
    assert all(math.isfinite(g.abs().sum().item()) for g in gradients)
