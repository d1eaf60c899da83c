"""ARC."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{dong2023arc,
  title     = {Efficient Adaptation of Large Vision Transformer via Adapter Re-Composing},
  author    = {Dong, Wei and Yan, Dawei and Lin, Zhijun and Wang, Peng},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2023}
}
"""


class Recomposed(nn.Module):
    """z + U Drop(diag(c) U^T z) + b, with a U (D, r) of several blocks: (B, N, D) -> (B, N, D)."""

    def __init__(self, u: nn.Parameter, dropout: float, zero: bool) -> None:
        super().__init__()
        dim, rank = u.shape
        self.u = u
        self.c = nn.Parameter(torch.zeros(1, rank))
        self.b = nn.Parameter(torch.zeros(dim))
        if not zero:
            nn.init.xavier_uniform_(self.c)
        self.dropout = nn.Dropout(dropout)

    def forward(self, z: Tensor) -> Tensor:
        return z + nn.functional.linear(self.dropout(z @ (self.u * self.c)), self.u, self.b)


@dataclass(frozen=True)
class ARC(Method):
    """ARC: linear bottlenecks in front of MHSA and MLP, one projection up and down for all blocks.

    x <- x + DropPath(MHSA(R(LN x))), R(z) = z + U Drop(diag(c) U^T z) + b, and so for the MLP

    Dong et al., Efficient Adaptation of Large Vision Transformer via Adapter Re-Composing,
    NeurIPS 2023 (arXiv:2310.06234), section 3. One U for all attentions and one for all MLPs,
    c and b of each place; on Swin, as in the released code, one pair of U per stage, that is per
    width. r = 50, dropout 0.1, U xavier-uniform, b zero, and c zero in front of MHSA but
    xavier-uniform in front of the MLP follow that code, so the start is no identity;
    `init="zero"` (its first version) starts from one.
    """

    rank: int = setting(50, at_least=1)
    dropout: float = setting(0.1, at_least=0, below=1)
    init: Literal["xavier", "zero"] = "xavier"

    search = {"rank": (10, 25, 50, 100), "init": ("xavier", "zero")}

    merges = True

    def attach(self, backbone: Backbone) -> None:
        shared: dict[tuple[int, int], nn.Parameter] = {}  # (place, width) -> U
        for block in backbone.blocks:
            for place, branch in enumerate(block.branches):
                key = place, block.shape.dim
                if key not in shared:
                    shared[key] = nn.Parameter(torch.empty(block.shape.dim, self.rank))
                    nn.init.xavier_uniform_(shared[key])
                zero = branch is block.attn or self.init == "zero"
                branch.before.append(Recomposed(shared[key], self.dropout, zero))

    def num_trainable(self, shape: Shape) -> int:
        widths = [block.dim for block in shape.blocks]
        return 2 * self.rank * sum(set(widths)) + sum(2 * (self.rank + dim) for dim in widths)

    def identity_at_init(self) -> bool:
        return self.init == "zero"
