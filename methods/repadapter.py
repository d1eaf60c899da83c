"""RepAdapter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.errors import UsageError
from petlbench.method import Method, setting

BIBTEX = """
@article{luo2023repadapter,
  title   = {Towards Efficient Visual Adaption via Structural Re-parameterization},
  author  = {Luo, Gen and Huang, Minglang and Zhou, Yiyi and Sun, Xiaoshuai and
             Jiang, Guannan and Wang, Zhiyu and Ji, Rongrong},
  journal = {arXiv preprint arXiv:2302.08106},
  year    = {2023}
}
"""


class SparseBottleneck(nn.Module):
    """z + s (Up(Drop(Down z)) + b), Up block-diagonal: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden: int, groups: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Parameter(torch.zeros(groups, dim // groups, hidden // groups))
        self.bias = nn.Parameter(torch.zeros(dim))
        nn.init.xavier_uniform_(self.down.weight)
        nn.init.zeros_(self.down.bias)
        self.groups, self.scale = groups, scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor) -> Tensor:
        u = self.dropout(self.down(z)).unflatten(-1, (self.groups, -1))  # (B, N, g, h / g)
        y = torch.einsum("bngh,gdh->bngd", u, self.up).flatten(-2)
        return z + (y + self.bias) * self.scale


@dataclass(frozen=True)
class RepAdapter(Method):
    """RepAdapter: a linear bottleneck in front of MHSA and of the MLP, which merges into them.

    x <- x + DropPath(MHSA(R(LN x))), R(z) = z + s B_g(Drop(A z)), and the same for the MLP

    Luo et al., Towards Efficient Visual Adaption via Structural Re-parameterization, 2023
    (arXiv:2302.08106), section 3. No activation; B_g has g groups; dropout 0.1, A xavier-uniform,
    all else zero, and both biases follow the released code (the paper's 0.22 M on ViT-B/16
    counts no biases, which make 0.24 M). The authors choose s per task; here it is a setting, by
    default 1 for every task. `place="attn"` is their smaller variant, in front of MHSA only.
    """

    hidden: int = setting(8, at_least=1)
    groups: int = setting(2, at_least=1)
    scale: float = 1.0
    dropout: float = setting(0.1, at_least=0, below=1)
    place: Literal["both", "attn"] = "both"

    search = {"scale": (0.1, 0.5, 1.0, 5.0, 10.0), "place": ("both", "attn")}

    merges = True

    def require(self, shape: Shape) -> None:
        super().require(shape)
        for width in (self.hidden, *(block.dim for block in shape.blocks)):
            if width % self.groups:
                raise UsageError(f"a width of {width} does not divide into {self.groups} groups.")

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            for branch in block.branches if self.place == "both" else (block.attn,):
                branch.before.append(
                    SparseBottleneck(
                        block.shape.dim, self.hidden, self.groups, self.scale, self.dropout
                    )
                )

    def num_trainable(self, shape: Shape) -> int:
        h, g = self.hidden, self.groups
        modules = sum((h * b.dim + h) + (b.dim * h // g + b.dim) for b in shape.blocks)
        return modules * (2 if self.place == "both" else 1)
