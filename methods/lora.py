"""LoRA on the query and value projections."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{hu2022lora,
  title     = {{LoRA}: Low-Rank Adaptation of Large Language Models},
  author    = {Hu, Edward J. and Shen, Yelong and Wallis, Phillip and Allen-Zhu, Zeyuan and
               Li, Yuanzhi and Wang, Shean and Wang, Lu and Chen, Weizhu},
  booktitle = {International Conference on Learning Representations},
  year      = {2022}
}
"""


class QueryValueUpdate(nn.Module):
    """[s B_q A_q x; 0; s B_v A_v x], added to q, k, v: (B, N, D) -> (B, N, 3D)."""

    def __init__(self, dim: int, out: int, rank: int, scale: float, dropout: float) -> None:
        super().__init__()
        self.a_q, self.a_v = (nn.Parameter(torch.empty(rank, dim)) for _ in range(2))
        self.b_q, self.b_v = (nn.Parameter(torch.zeros(out, rank)) for _ in range(2))
        for a in (self.a_q, self.a_v):
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = self.dropout(x)
        q = nn.functional.linear(nn.functional.linear(x, self.a_q), self.b_q)
        v = nn.functional.linear(nn.functional.linear(x, self.a_v), self.b_v)
        return torch.cat([q, torch.zeros_like(q), v], dim=-1) * self.scale


@dataclass(frozen=True)
class LoRA(Method):
    """LoRA: a low-rank update of the query and value projections, W' = W + (alpha / rank) B A.

    Hu et al., LoRA, ICLR 2022 (arXiv:2106.09685), section 4.1 and its choice of W_q and W_v
    (section 4.2); A Kaiming-uniform(sqrt 5), B zero, no biases, as in microsoft/LoRA.
    Not the module behind the "LoRA 0.29 M" rows of NOAH, Convpass and FacT: that one shares A
    over q, k and v and has, by coincidence, as many parameters.
    """

    rank: int = setting(8, at_least=1)
    alpha: float = setting(8.0, above=0)
    dropout: float = setting(0.0, at_least=0, below=1)

    search = {"rank": (1, 4, 8, 16, 32)}

    merges = True

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            qkv = block.attn.linear("qkv")
            scale = self.alpha / self.rank
            qkv.deltas.append(
                QueryValueUpdate(
                    qkv.in_features, qkv.out_features // 3, self.rank, scale, self.dropout
                )
            )

    def num_trainable(self, shape: Shape) -> int:
        ends = (block.linears["qkv"] for block in shape.blocks)
        return sum(2 * self.rank * (inputs + outputs // 3) for inputs, outputs in ends)
