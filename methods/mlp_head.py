"""MLP head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting
from petlbench.methods.vpt import BIBTEX as BIBTEX


class Hidden(nn.Module):
    """Drop(LN(ReLU(W f + b))): (B, D) -> (B, D)."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)
        nn.init.kaiming_normal_(self.linear.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, f: Tensor, state: Any) -> Tensor:
        return self.dropout(self.norm(torch.relu(self.linear(f))))


@dataclass(frozen=True)
class MLPHead(Method):
    """MLP head: hidden layers between the frozen feature and the linear head.

    The baseline Mlp-k of VPT (Jia et al., ECCV 2022, arXiv:2203.12119, section 4.1), k counting
    the linear head: the default of two hidden layers is their Mlp-3. Hidden layers as wide as the
    feature, ReLU in front of the normalisation, dropout 0.1, Kaiming-normal weights and no
    drop-path in the encoder, as in the authors' code. Deviations: LayerNorm for their BatchNorm,
    whose running statistics are no parameters (as many parameters, the same prediction for an
    image in any batch); the linear head starts as that of every other method here.
    """

    hidden_layers: int = setting(2, at_least=1)
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"hidden_layers": (1, 2, 4)}

    def require(self, shape: Shape) -> None:
        pass  # any model has a feature

    def attach(self, backbone: Backbone) -> None:
        backbone.drop_path_off()
        for _ in range(self.hidden_layers):
            backbone.features.append(Hidden(backbone.shape.num_features, self.dropout))

    def num_trainable(self, shape: Shape) -> int:
        dim = shape.num_features
        return self.hidden_layers * (dim * dim + dim + 2 * dim)

    def identity_at_init(self) -> bool:
        return False
