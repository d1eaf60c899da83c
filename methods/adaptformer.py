"""AdaptFormer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{chen2022adaptformer,
  title     = {{AdaptFormer}: Adapting Vision Transformers for Scalable Visual Recognition},
  author    = {Chen, Shoufa and Ge, Chongjian and Tong, Zhan and Wang, Jiangliu and Song, Yibing and
               Wang, Jue and Luo, Ping},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022}
}
"""


class Bottleneck(nn.Module):
    """s Up(Drop(ReLU(Down x))): (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        self.scale = scale
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.dropout(torch.relu(self.down(x)))) * self.scale


@dataclass(frozen=True)
class AdaptFormer(Method):
    """AdaptFormer: a bottleneck parallel to the MLP, reading the residual stream before LN2.

    x <- x + DropPath(MLP(LN x)) + s Up(Drop(ReLU(Down x)))

    Chen et al., AdaptFormer, NeurIPS 2022 (arXiv:2205.13535), section 3.2. Input before the
    LayerNorm, dropout 0.1, biases, outside drop-path and LayerScale, as in the authors' code.
    Width 8 as in the VTAB-1K tables (the paper's default is 64); s = 0.1 as in the paper.
    """

    hidden: int = setting(8, at_least=1)
    scale: float = 0.1
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0), "hidden": (4, 8, 16, 32, 64)}

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            block.mlp.parallel_residual.append(
                Bottleneck(block.shape.dim, self.hidden, self.scale, self.dropout)
            )

    def num_trainable(self, shape: Shape) -> int:
        h = self.hidden
        return sum(2 * h * block.dim + h + block.dim for block in shape.blocks)
