"""Adapter (Pfeiffer), as in the VTAB tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = r"""
@inproceedings{pfeiffer2021adapterfusion,
  title     = {{AdapterFusion}: Non-Destructive Task Composition for Transfer Learning},
  author    = {Pfeiffer, Jonas and Kamath, Aishwarya and R{\"u}ckl{\'e}, Andreas and
               Cho, Kyunghyun and Gurevych, Iryna},
  booktitle = {Conference of the European Chapter of the Association for Computational
               Linguistics},
  year      = {2021}
}
"""


class Bottleneck(nn.Module):
    """y + Up(Drop(q(Down y))), q(u) = u sigmoid(1.702 u): (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden: int, dropout: float, zero_up: bool) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)
        self.dropout = nn.Dropout(dropout)
        for linear in (self.down, self.up):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)
        if zero_up:
            nn.init.zeros_(self.up.weight)
            nn.init.zeros_(self.up.bias)

    def forward(self, y: Tensor) -> Tensor:
        u = self.down(y)
        return y + self.up(self.dropout(u * torch.sigmoid(1.702 * u)))


@dataclass(frozen=True)
class Adapter(Method):
    """Adapter: a sequential bottleneck on the MLP's output, x <- x + A(DropPath(MLP(LN x))).

    Pfeiffer et al., AdapterFusion, EACL 2021 (arXiv:2005.00247), in the form behind the
    "Adapter" rows of the VTAB-1K tables (NOAH, arXiv:2206.04673, and later papers): hidden width
    8, QuickGELU, dropout 0.1, biases, outside drop-path and LayerScale. NOAH's code initialises
    both projections xavier-uniform, so the adapter is no identity at start; `init="zero_up"`
    starts from the identity. Both projections at zero, as some releases do, is not offered: with
    zero biases nothing but the output bias ever receives a gradient.
    """

    hidden: int = setting(8, at_least=1)
    dropout: float = setting(0.1, at_least=0, below=1)
    init: Literal["xavier", "zero_up"] = "xavier"

    search = {"hidden": (4, 8, 16, 32, 64), "init": ("xavier", "zero_up")}

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            block.mlp.after.append(
                Bottleneck(block.shape.dim, self.hidden, self.dropout, self.init == "zero_up")
            )

    def num_trainable(self, shape: Shape) -> int:
        h = self.hidden
        return sum(2 * h * block.dim + h + block.dim for block in shape.blocks)

    def identity_at_init(self) -> bool:
        return self.init == "zero_up"
