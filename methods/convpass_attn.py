"""Convpass-attn."""

from __future__ import annotations

from dataclasses import dataclass

from petlbench.backbone import Backbone, Shape
from petlbench.methods.convpass import Convpass


@dataclass(frozen=True)
class ConvpassAttn(Convpass):
    """Convpass-attn: Convpass with the bypass of MHSA only.

    Jie and Deng, 2022 (arXiv:2207.07039), section 4: the variant of half the size.
    """

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            block.attn.parallel.append(self.bypass(block.attn, block.shape))

    def num_trainable(self, shape: Shape) -> int:
        return sum(self.num_per_bypass(block) for block in shape.blocks)
