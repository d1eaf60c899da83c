"""KAdaptation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{he2023kadaptation,
  title     = {Parameter-Efficient Model Adaptation for Vision Transformers},
  author    = {He, Xuehai and Li, Chunyuan and Zhang, Pengchuan and Yang, Jianwei and
               Wang, Xin Eric},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2023}
}
"""


class KroneckerUpdate(nn.Module):
    """[W_q + s H_q^T; W_k; W_v + s H_v^T], b + [c; 0; c]: W (3D, D), b (3D,).

    H = sum over i of (l_i r_i^T) kron (u_i v_i^T) is a sum of (l_i kron u_i) (r_i kron v_i)^T.
    """

    def __init__(
        self,
        left: nn.Parameter,
        right: nn.Parameter,
        ends: tuple[int, int],
        scale: float,
        dropout: float,
    ) -> None:
        super().__init__()
        both, terms, axis = left.shape
        inputs, out = ends
        self.l, self.r = left, right  # (2, n, a): for q and for v, and the same in every block
        self.u = nn.Parameter(torch.empty(both, terms, inputs // axis))
        self.v = nn.Parameter(torch.zeros(both, terms, out // axis))
        self.c = nn.Parameter(torch.zeros(out))
        bound = math.sqrt(2) * math.sqrt(6 / (inputs // axis + 1))  # each u_i is one column
        nn.init.uniform_(self.u, -bound, bound)
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        reads = torch.einsum("tna,tnk->tnak", self.l, self.u).flatten(2)  # (2, n, D)
        writes = torch.einsum("tnc,tnp->tncp", self.r, self.v).flatten(2)
        query, value = self.dropout(writes.mT @ reads) * self.scale
        weight = weight + torch.cat([query, torch.zeros_like(query), value])
        constant = torch.cat([self.c, torch.zeros_like(self.c), self.c])
        return weight, constant if bias is None else bias + constant


@dataclass(frozen=True)
class KAdaptation(Method):
    """KAdaptation: W_q and W_v plus Kronecker products, whose left factors all blocks share.

    x H with H = s sum over i of A_i kron B_i, A_i = l_i r_i^T, B_i = u_i v_i^T

    He et al., Parameter-Efficient Model Adaptation for Vision Transformers, AAAI 2023
    (arXiv:2203.16329). n terms; A_i is n x n and the same in every block, B_i a block's own; one
    bias per block, added to q and to v; q and v have factors of their own. n = 32, s = 160,
    dropout 0.5 on H, and l and r uniform on (-0.01, 0.01) follow the released code. Where that
    code cannot work, this file departs from it: u and v both start at zero there, so that neither
    ever receives a gradient, and here u is Glorot-uniform with gain sqrt 2 (the code's
    initialisation where B_i is not factorised) and v zero; the increment of q joins after the
    division by the root of the head width, with heads and tokens mixed up, and here it joins W_q.
    Numbers of that code are not to be expected. A_i is a x a, with a = n where n divides all
    widths, and else their greatest common divisor with n.
    """

    terms: int = setting(32, at_least=1)
    scale: float = 160.0
    dropout: float = setting(0.5, at_least=0, below=1)

    search = {"scale": (1.0, 10.0, 160.0), "dropout": (0.0, 0.5)}

    merges = True

    def axis(self, shape: Shape) -> int:
        """The side of A."""
        return math.gcd(self.terms, *(n for b in shape.blocks for n in b.linears["qkv"]))

    def attach(self, backbone: Backbone) -> None:
        size = (2, self.terms, self.axis(backbone.shape))
        left, right = (nn.Parameter(torch.empty(size).uniform_(-0.01, 0.01)) for _ in range(2))
        for block in backbone.blocks:
            inputs, outputs = block.shape.linears["qkv"]
            ends = inputs, outputs // 3
            update = KroneckerUpdate(left, right, ends, self.scale, self.dropout)
            block.linear("qkv").weights.append(update)

    def num_trainable(self, shape: Shape) -> int:
        axis = self.axis(shape)
        shared = 2 * 2 * self.terms * axis
        ends = ((i, o // 3) for i, o in (block.linears["qkv"] for block in shape.blocks))
        return shared + sum(2 * self.terms * (i // axis + o // axis) + o for i, o in ends)
