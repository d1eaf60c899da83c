"""DiffFit."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Norm, Shape, biases
from petlbench.method import Method

BIBTEX = """
@inproceedings{xie2023difffit,
  title     = {{DiffFit}: Unlocking Transferability of Large Diffusion Models via Simple
               Parameter-Efficient Fine-Tuning},
  author    = {Xie, Enze and Yao, Lewei and Shi, Han and Liu, Zhili and Zhou, Daquan and
               Liu, Zhaoqiang and Li, Jiawei and Li, Zhenguo},
  booktitle = {International Conference on Computer Vision},
  year      = {2023}
}
"""


class Scale(nn.Module):
    """What a layer puts out, times g per channel: W (D, in), b (D) -> diag(g) W, g * b."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(outputs))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return self.gamma[:, None] * weight, None if bias is None else self.gamma * bias


@dataclass(frozen=True)
class DiffFit(Method):
    """DiffFit: every bias and LayerNorm trains, and a scale per channel of each sub-layer's output.

    x <- x + DropPath(g * MHSA(LN x)), and the same for the MLP; g = 1 at start

    Xie et al., DiffFit, ICCV 2023 (arXiv:2304.06648), section 3, for diffusion transformers; each
    of the two g of a block is a vector, as in the authors' code. Here g is applied to the rows of
    the last linear layer of its sub-layer (proj, fc2): the same function, and it merges. What they
    train of a generator's embedding of classes has no counterpart in a classifier.
    """

    merges = True

    def attach(self, backbone: Backbone) -> None:
        for bias in biases(backbone):
            bias.requires_grad_(True)
        for layer in backbone.layers.values():
            if isinstance(layer, Norm):
                layer.weight.requires_grad_(True)
        for block in backbone.blocks:
            for name in ("proj", "fc2"):
                block.linear(name).weights.append(Scale(block.shape.dim))

    def num_trainable(self, shape: Shape) -> int:
        weights = sum(layer.outputs for layer in shape.layers if layer.kind == "norm")
        return shape.num_biases + weights + sum(2 * block.dim for block in shape.blocks)
