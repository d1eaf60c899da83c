"""Bi-LoRA: LoRA of few-bit weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting
from petlbench.methods.bi_adaptformer import BIBTEX as BIBTEX
from petlbench.methods.bi_adaptformer import QuantizedBottleneck, packed_bytes


class QuantizedUpdate(nn.Module):
    """[s Q(B_q) Q(A_q) x; 0; s Q(B_v) Q(A_v) x], added to q, k, v: (B, N, D) -> (B, N, 3D)."""

    def __init__(
        self, dim: int, out: int, rank: int, scale: float, dropout: float, bits: int
    ) -> None:
        super().__init__()
        self.q, self.v = (
            QuantizedBottleneck(dim, out, rank, scale, dropout, bits, linear=True) for _ in "qv"
        )

    def forward(self, x: Tensor) -> Tensor:
        q, v = self.q(x), self.v(x)
        return torch.cat([q, torch.zeros_like(q), v], dim=-1)


@dataclass(frozen=True)
class BiLoRA(Method):
    """Bi-LoRA: LoRA on the query and value projections, its weights quantised to one bit.

    W' = W + s Q(B) Q(A), for q and for v

    Jie, Wang and Deng, ICCV 2023 (arXiv:2307.16867), as bi_adaptformer, whose quantisation,
    initialisation and storage it has. Rank 32 and dropout 0.1 on the bottleneck follow the
    authors' code, as does s, which is no alpha / rank; they choose it per task, and here it is a
    setting, by default 1.
    """

    rank: int = setting(32, at_least=1)
    bits: int = setting(1, at_least=1, at_most=8)
    scale: float = 1.0
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"rank": (1, 8, 32), "scale": (0.01, 0.1, 1.0, 10.0, 100.0)}

    merges = True

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            inputs, outputs = block.shape.linears["qkv"]
            block.attn.linear("qkv").deltas.append(
                QuantizedUpdate(
                    inputs, outputs // 3, self.rank, self.scale, self.dropout, self.bits
                )
            )

    def num_trainable(self, shape: Shape) -> int:
        ends = (block.linears["qkv"] for block in shape.blocks)
        return sum(2 * self.rank * (inputs + outputs // 3) for inputs, outputs in ends)

    def identity_at_init(self) -> bool:
        return False

    def stored_bytes(self, trained: dict[str, Tensor]) -> int:
        return packed_bytes(trained, self.bits)
