"""DoRA on the query and value projections."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{liu2024dora,
  title = {{DoRA}: Weight-Decomposed Low-Rank Adaptation},
  author = {Liu, Shih-Yang and Wang, Chien-Yi and Yin, Hongxu and Molchanov, Pavlo and
            Wang, Yu-Chiang Frank and Cheng, Kwang-Ting and Chen, Min-Hung},
  booktitle = {International Conference on Machine Learning},
  year = {2024}
}
"""


def row_norms(weight: Tensor) -> Tensor:
    """(out, in) -> (out, 1). A row of zeros has no direction, and must not become NaN."""
    return weight.norm(dim=1, keepdim=True).clamp_min(1e-12)


class Decomposed(nn.Module):
    """m V / |V| with V = W + s B A, row by row: (out, in) -> (out, in)."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        out, inputs = weight.shape
        self.a = nn.Parameter(torch.empty(rank, inputs))
        self.b = nn.Parameter(torch.zeros(out, rank))
        self.magnitude = nn.Parameter(row_norms(weight.detach()))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.scale = scale

    def forward(self, weight: Tensor) -> Tensor:
        direction = weight + self.scale * (self.b @ self.a)
        return self.magnitude / row_norms(direction.detach()) * direction


class QueryValue(nn.Module):
    """The query and value rows of W decomposed: W (3D, D), b -> W' (3D, D), b."""

    def __init__(self, weight: Tensor, rank: int, scale: float) -> None:
        super().__init__()
        query, _, value = weight.chunk(3)
        self.q, self.v = (Decomposed(third, rank, scale) for third in (query, value))

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        query, key, value = weight.chunk(3)
        return torch.cat([self.q(query), key, self.v(value)]), bias


@dataclass(frozen=True)
class DoRA(Method):
    """DoRA: LoRA on the direction of each row of W_q and W_v, whose lengths m train apart.

    W' = m V / |V|, V = W + (alpha / rank) B A, m = |W| at start

    Liu et al., DoRA, ICML 2024 (arXiv:2402.09353), sections 4.1 and 4.3. |V| is a constant for
    the gradient, as section 4.3 proposes. The paper writes norms of columns; the released code
    and PEFT take them over the inputs, one length per output, and so does this file. On query and
    value, with A and B initialised as in `lora`, for comparison with it; the authors adapt more
    layers of language models. Their dropout on the input of A is left out: inside the weight it
    has no input to act on.
    """

    rank: int = setting(8, at_least=1)
    alpha: float = setting(8.0, above=0)

    search = {"rank": (1, 4, 8, 16, 32)}

    merges = True

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            qkv = block.linear("qkv")
            qkv.weights.append(QueryValue(qkv.weight, self.rank, self.alpha / self.rank))

    def num_trainable(self, shape: Shape) -> int:
        ends = (block.linears["qkv"] for block in shape.blocks)
        return sum(2 * (self.rank * (i + o // 3) + o // 3) for i, o in ends)
