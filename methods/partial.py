"""Partial fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from petlbench.backbone import Backbone, Shape
from petlbench.errors import UsageError
from petlbench.method import Method, setting
from petlbench.methods.vpt import BIBTEX as BIBTEX

FINAL = ("norm", "fc_norm")  # the norm before or after pooling; models have either or both


@dataclass(frozen=True)
class Partial(Method):
    """Partial fine-tuning: the last k blocks and the final norm train, the rest is frozen.

    The baseline Partial-k of VPT (Jia et al., ECCV 2022, arXiv:2203.12119, section 4.1). As in
    the authors' code, the final norm trains too and the encoder stays in evaluation mode: no
    drop-path. In Swin, the patch merging in front of a block counts as a part of it; their k = 2
    leaves it frozen, their k = 4 does not.
    """

    blocks: int = setting(1, at_least=1)

    search = {"blocks": (1, 2, 4)}

    merges = True  # in place

    def require(self, shape: Shape) -> None:
        super().require(shape)
        if self.blocks > len(shape.blocks):
            raise UsageError(f"the model has {len(shape.blocks)} blocks, not {self.blocks}.")
        if not any(layer.name in FINAL for layer in shape.layers):
            raise UsageError(f"petlbench does not know which layer of {shape.family} is its norm.")

    def attach(self, backbone: Backbone) -> None:
        backbone.drop_path_off()
        for block in backbone.blocks[-self.blocks :]:
            block.requires_grad_(True)
        for name, layer in backbone.layers.items():
            if name in FINAL:
                layer.requires_grad_(True)

    def num_trainable(self, shape: Shape) -> int:
        norms = (layer for layer in shape.layers if layer.name in FINAL)
        blocks = sum(block.num_parameters for block in shape.blocks[-self.blocks :])
        return blocks + sum(norm.outputs * (1 + norm.bias) for norm in norms)
