"""BitFit."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method


@dataclass(frozen=True)
class BitFit(Method):
    """BitFit: every existing bias vector trains; nothing is added.

    Ben Zaken et al., BitFit, ACL 2022 (arXiv:2106.10199), for language models. On vision
    transformers the biases are those of qkv, proj, fc1, fc2, of every LayerNorm and of the patch
    embedding, as in the "bias" baseline of VPT (arXiv:2203.12119).
    """

    def attach(self, backbone: Backbone) -> None:
        for module in backbone.modules():
            bias = getattr(module, "bias", None)
            if isinstance(bias, nn.Parameter):
                bias.requires_grad_(True)

    def num_trainable(self, shape: Shape) -> int:
        qkv = 3 * shape.dim if shape.qkv_bias else 0
        # two LayerNorms, qkv, proj, fc1, fc2
        per_block = 2 * shape.dim + qkv + shape.dim + shape.mlp_hidden + shape.dim
        return shape.depth * per_block + (shape.patch_bias + shape.num_outer_norms) * shape.dim
