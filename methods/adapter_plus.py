"""Adapter+."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{steitz2024adapters,
  title     = {Adapters Strike Back},
  author    = {Steitz, Jan-Martin O. and Roth, Stefan},
  booktitle = {Conference on Computer Vision and Pattern Recognition},
  year      = {2024}
}
"""

STD = 0.01  # of the initial weights, before truncation at two standard deviations


class ScaledBottleneck(nn.Module):
    """x + g * DropPath(Up(GELU(Down x))): (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden: int, drop_path: float) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)
        self.drop_path = DropPath(drop_path)
        self.scale = nn.Parameter(torch.ones(dim))
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=STD, a=-2 * STD, b=2 * STD)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale * self.drop_path(self.up(F.gelu(self.down(x))))


@dataclass(frozen=True)
class AdapterPlus(Method):
    """Adapter+: a bottleneck with a learned scale per channel, behind the whole block.

    x <- x + DropPath(MLP(LN x)); x <- x + g * DropPath'(Up(GELU(Down x)))

    Steitz and Roth, Adapters Strike Back, CVPR 2024 (arXiv:2406.06820), section 3: their position
    "post" with channel-wise scaling, g = 1 at start. As in the authors' code: weights normal with
    standard deviation 0.01, cut at two, and biases zero, so it starts near the identity; no norm
    and no dropout of its own, but its own drop-path, at the same rate in every block while that
    of the backbone rises from 0. They choose the width per task as well; here it is one setting.
    """

    hidden: int = setting(8, at_least=1)
    drop_path: float = setting(0.1, at_least=0, below=1)

    search = {"hidden": (1, 2, 4, 8, 16, 32)}

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            block.mlp.out.append(ScaledBottleneck(block.shape.dim, self.hidden, self.drop_path))

    def num_trainable(self, shape: Shape) -> int:
        h = self.hidden
        return sum(2 * h * block.dim + h + 2 * block.dim for block in shape.blocks)

    def identity_at_init(self) -> bool:
        return False
