"""Compacter."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, Block, Branch, Shape, norms
from petlbench.errors import UsageError
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{mahabadi2021compacter,
  title     = {Compacter: Efficient Low-Rank Hypercomplex Adapter Layers},
  author    = {Karimi Mahabadi, Rabeeh and Henderson, James and Ruder, Sebastian},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2021}
}
"""

STD = 1e-4  # of the initial A


class Kronecker(nn.Module):
    """W z + b, W = sum over i of A_i (x) s_i t_i^T, (x) Kronecker's: (B, N, in) -> (B, N, out).

    A (n, n, n) is given: one parameter that all layers share. s (n, out / n), t (n, in / n).
    """

    def __init__(self, inputs: int, outputs: int, rule: nn.Parameter) -> None:
        super().__init__()
        n = len(rule)
        self.rule = rule
        self.s, self.t = (nn.Parameter(torch.empty(n, width // n)) for width in (outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        for factor in (self.s, self.t):  # n matrices of one column: xavier-uniform, gain sqrt 2
            bound = math.sqrt(2) * math.sqrt(6 / (factor.shape[1] + 1))
            nn.init.uniform_(factor, -bound, bound)

    def forward(self, z: Tensor) -> Tensor:
        weight = torch.einsum("iab,ic,id->acbd", self.rule, self.s, self.t)
        return F.linear(z, weight.flatten(2).flatten(0, 1), self.bias)


class Bottleneck(nn.Module):
    """y + Up(GELU(Down(LN y))), LN where it has one of its own: (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden: int, rule: nn.Parameter, own_norm: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim) if own_norm else nn.Identity()
        self.down = Kronecker(dim, hidden, rule)
        self.up = Kronecker(hidden, dim, rule)

    def forward(self, y: Tensor) -> Tensor:
        return y + self.up(F.gelu(self.down(self.norm(y)), approximate="tanh"))


@dataclass(frozen=True)
class Compacter(Method):
    """Compacter: adapters whose weights are sums of Kronecker products with shared factors.

    x <- x + A(DropPath(MHSA(LN x))), and the same for the MLP
    W = sum over i = 1..n of A_i (x) s_i t_i^T, for Down and for Up

    Karimi Mahabadi, Henderson and Ruder, Compacter, NeurIPS 2021 (arXiv:2106.04647), section 3,
    for T5. A_1..A_n are shared by all layers and by Down and Up; s_i, t_i and the biases are each
    layer's own. As in the authors' code: n = 4, every LayerNorm trains too (`norms`), tanh-GELU,
    A normal with standard deviation 1e-4, s and t xavier-uniform with gain sqrt 2, biases zero.
    Both weights then are so small that it starts as the backbone, up to rounding. Width 24 is
    their 1 / 32 of 768. `site="mlp"` is Compacter++.

    Deviation: T5 has its dropout behind the adapter; here, as in `houlsby`, the adapter stands
    behind drop-path and LayerScale. The variant for CLIP of PEViT (arXiv:2203.16329) is
    `site=mlp, hidden=64, norms=False, own_norm=True, rule=frozen`: a LayerNorm inside each
    adapter, and A uniform(-1, 1), which stays as it is drawn.
    """

    hidden: int = setting(24, at_least=1)
    n: int = setting(4, at_least=1)
    norms: bool = True
    site: Literal["both", "mlp"] = "both"
    own_norm: bool = False
    rule: Literal["trained", "frozen"] = "trained"

    search = {"n": (2, 4, 8), "site": ("both", "mlp")}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        for width in (self.hidden, *(block.dim for block in shape.blocks)):
            if width % self.n:
                raise UsageError(f"n = {self.n} does not divide the width {width}.")

    def attach(self, backbone: Backbone) -> None:
        if self.norms:
            for norm in norms(backbone):
                norm.requires_grad_(True)
        rule = nn.Parameter(STD * torch.randn(self.n, self.n, self.n))
        if self.rule == "frozen":
            rule = nn.Parameter(torch.empty_like(rule).uniform_(-1, 1), requires_grad=False)
        for block in backbone.blocks:
            for branch in self.branches(block):
                branch.after.append(Bottleneck(block.shape.dim, self.hidden, rule, self.own_norm))

    def branches(self, block: Block) -> tuple[Branch, ...]:
        return block.branches if self.site == "both" else (block.mlp,)

    def num_trainable(self, shape: Shape) -> int:
        places = 2 if self.site == "both" else 1
        # s and t of Down, s and t of Up, two biases: each once as wide as h and once as D
        adapters = sum(places * 3 * (self.hidden + block.dim) for block in shape.blocks)
        own = sum(places * 2 * block.dim for block in shape.blocks) if self.own_norm else 0
        rule = self.n**3 if self.rule == "trained" else 0
        return rule + adapters + own + (shape.num_norms if self.norms else 0)

    def identity_at_init(self) -> bool:
        return self.rule == "trained"
