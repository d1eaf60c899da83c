"""Families of encoders: what each makes of its embedding, its blocks and its pooling."""

from __future__ import annotations

from torch import nn

from petlbench.backbone import Backbone
from petlbench.backbones.clip import CLIP
from petlbench.backbones.other import Other
from petlbench.backbones.swin import Swin
from petlbench.backbones.vit import ViT
from petlbench.errors import UsageError

FAMILIES: tuple[type[Backbone], ...] = (ViT, Swin, CLIP, Other)


def adopt(model: nn.Module) -> Backbone:
    """Wrap a timm model in the family that describes it; refuses with the families' reasons."""
    reasons = {family.__name__: family.refuses(model) for family in FAMILIES}
    for family in FAMILIES:
        if not reasons[family.__name__]:
            return family(model)
    told = "; ".join(f"as {name}: {reason}" for name, reason in reasons.items())
    raise UsageError(f"{type(model).__name__} is not a backbone for petlbench ({told}).")
