"""What the proofs share: a tiny backbone, ViT-B/16 without storage, a dropout that shows."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from petlbench.backbone import Backbone, Branch, attached_modules, trained_parameters
from petlbench.backbones.vit import ViT
from petlbench.method import load

CLASSES = 3
TINY: dict[str, Any] = {
    "img_size": (12, 8),
    "patch_size": 4,
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
}


def adapt(method: str, config: dict[str, Any] | None = None, **options: Any) -> Backbone:
    """A tiny backbone, prepared and adapted, in float64."""
    torch.manual_seed(0)
    backbone = ViT(VisionTransformer(**TINY | options))
    backbone.prepare(CLASSES)
    built = load(method)(**(config or {}))
    built.attach(backbone)
    built.calibrate(backbone, batches)
    return backbone.double()


def perturb(module: nn.Module) -> None:
    """Away from zeros and ones, so that every term counts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def images(number: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, 3, 12, 8, generator=generator, dtype=torch.float64)


def tokens(number: int = 4, prefix: int = 1) -> Tensor:
    """A residual stream of the tiny backbone: (B, N, D)."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(number, prefix + 6, 12, generator=generator, dtype=torch.float64)


def batches(size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Twelve training images of a tiny backbone, for methods that look at some."""
    pixels = torch.randn(12, 3, 12, 8, generator=torch.Generator().manual_seed(4))
    return zip(pixels.split(size), (torch.arange(12) % CLASSES).split(size), strict=True)


def last_branches(backbone: Backbone) -> tuple[Branch, Branch]:
    return list(backbone.blocks)[-1].branches


def rates(backbone: Backbone) -> list[float]:
    return [branch.drop_path_rate for block in backbone.blocks for branch in block.branches]


def added(backbone: Backbone) -> dict[str, nn.Parameter]:
    return {n: p for n, p in trained_parameters(backbone).items() if not n.startswith("head.")}


def quick_gelu(u: Tensor) -> Tensor:
    return u * torch.sigmoid(1.702 * u)


class Times(nn.Module):
    """Stands in for a dropout: shows where it acts."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


def attached(backbone: Backbone) -> list[Any]:
    """The modules, attached to any site, that have a dropout of their own."""
    own = attached_modules(backbone)
    return [
        module
        for module in backbone.modules()
        if isinstance(getattr(module, "dropout", None), nn.Dropout) and module in own
    ]


def dropped(method: str, config: dict[str, Any]) -> Branch:
    """The MLP branch of the last block in training mode, its drop-path certain to drop."""
    backbone = adapt(method, {"dropout": 0.0} | config, drop_path_rate=0.4, init_values=0.1)
    branch = last_branches(backbone)[1]
    perturb(branch)
    cast(Any, branch.drop_path).drop_prob = 1.0
    return branch.train()


def base() -> Backbone:
    """ViT-B/16 without storage: what a method attaches to it is real."""
    with torch.device("meta"):
        backbone = ViT(VisionTransformer())
        backbone.prepare(CLASSES)
    return backbone


def initial(method: str, **config: Any) -> dict[str, list[Tensor]]:
    """`down.weight`, `a_q` and the like -> the initial tensors of all blocks."""
    torch.manual_seed(0)
    backbone = base()
    load(method)(**config).attach(backbone)
    found: dict[str, list[Tensor]] = {}
    for name, parameter in added(backbone).items():
        short = ".".join(part for part in name.split(".")[-2:] if not part.isdigit())
        found.setdefault(short, []).append(parameter.detach())
    return found


def assert_uniform(tensors: list[Tensor], bound: float) -> None:
    """Uniform on (-bound, bound): never beyond, all the way to it, with its standard deviation."""
    values = torch.cat([tensor.flatten() for tensor in tensors])
    assert 0.99 * bound < values.abs().max() <= bound * (1 + 1e-6)
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert abs(values.mean().item()) < 5 * bound / math.sqrt(3 * len(values))
    assert not torch.equal(tensors[0], tensors[-1]) or len(tensors) == 1


def assert_zero(tensors: list[Tensor]) -> None:
    assert not any(tensor.any() for tensor in tensors)
