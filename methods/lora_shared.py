"""LoRA with one pair of factors for query, key and value."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = """
@article{zhang2022noah,
  title = {Neural Prompt Search},
  author = {Zhang, Yuanhan and Zhou, Kaiyang and Liu, Ziwei},
  journal = {arXiv preprint arXiv:2206.04673},
  year = {2022}
}
"""


class JointUpdate(nn.Module):
    """B A Drop(x), added to q, k, v together: (B, N, D) -> (B, N, 3D)."""

    def __init__(self, dim: int, out: int, rank: int, dropout: float) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, dim))
        self.b = nn.Parameter(torch.zeros(out, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(nn.functional.linear(self.dropout(x), self.a), self.b)


@dataclass(frozen=True)
class LoRAShared(Method):
    """LoRA, shared: one low-rank update W' = W + B A of the whole q, k, v projection.

    Zhang, Zhou and Liu, Neural Prompt Search (NOAH), 2022 (arXiv:2206.04673): the module behind
    its "LoRA" rows, which Convpass and FacT print again. A is shared by query, key and value, and
    the key is adapted too; the method `lora` adapts query and value with factors of their own and
    has, by coincidence, as many parameters. Scale 1, dropout 0.1 on the input of A,
    A Kaiming-uniform(sqrt 5), B zero, no biases, as in the released code.
    """

    rank: int = setting(8, at_least=1)
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"rank": (1, 4, 8, 16, 32)}

    merges = True

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            inputs, outputs = block.shape.linears["qkv"]
            update = JointUpdate(inputs, outputs, self.rank, self.dropout)
            block.linear("qkv").deltas.append(update)

    def num_trainable(self, shape: Shape) -> int:
        return sum(self.rank * sum(block.linears["qkv"]) for block in shape.blocks)
