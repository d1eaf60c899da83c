"""Any other timm model with a pooled feature: for methods that need no transformer blocks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from petlbench.backbone import Backbone, Block


class Other(Backbone):
    """ConvNeXt and the like, as one stage: no blocks with sites, but every layer has its own."""

    @staticmethod
    def refuses(model: nn.Module) -> str:
        if any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in model.modules()):
            return "its BatchNorm statistics would change while it is frozen"
        if not (hasattr(model, "forward_features") and hasattr(model, "forward_head")):
            return "it has no feature that a head could read"
        return ""

    @property
    def family(self) -> str:
        return type(self.vit).__name__

    def wrap(self) -> Iterator[Block]:
        yield from ()

    def embed(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.vit.forward_features(images))

    def pool(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.vit.forward_head(x, pre_logits=True))

    def tail(self) -> list[nn.Module]:
        return [m for name in ("head", "fc_norm") if (m := getattr(self.vit, name, None))]

    def geometry(self) -> tuple[tuple[int, int], tuple[int, int]]:
        stride = max(info["reduction"] for info in self.vit.feature_info)
        return (stride, stride), (1, 1)
