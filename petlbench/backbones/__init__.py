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
    """Wrap a timm model in the family that describes it; refuses with the reason."""
    for family in FAMILIES:
        if not (reason := family.refuses(model)):
            return family(model)
    # the last family asks the least, so its reason is the one that counts
    raise UsageError(f"{type(model).__name__} is not a backbone for petlbench: {reason}.")
