"""FacT-TT."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.errors import UsageError
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{jie2023fact,
  title     = {{FacT}: Factor-Tuning for Lightweight Adaptation on Vision Transformer},
  author    = {Jie, Shibo and Deng, Zhi-Hong},
  booktitle = {Proceedings of the AAAI Conference on Artificial Intelligence},
  year      = {2023}
}
"""


class Increment(nn.Module):
    """s V Drop(Sigma U x), x in vectors of D: (..., a D) -> (..., a r) -> (..., b r) -> (..., b D).

    U, V: between D and r, the same in every layer. `core`: Sigma, (..., a r) -> (..., b r).
    """

    def __init__(
        self, u: nn.Linear, core: nn.Module, v: nn.Linear, scale: float, dropout: float
    ) -> None:
        super().__init__()
        self.u, self.core, self.v = u, core, v
        self.scale = scale
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        reads = self.u(torch.unflatten(x, -1, (-1, self.u.in_features))).flatten(-2)
        writes = self.dropout(self.core(reads))
        writes = torch.unflatten(writes, -1, (-1, self.v.in_features))
        return self.v(writes).flatten(-2) * self.scale


def slices(shape: Shape) -> list[tuple[int, int]]:
    """(a, b) of each linear layer in order: it maps a vectors of D to b of them."""
    return [(i // b.dim, o // b.dim) for b in shape.blocks for i, o in b.linears.values()]


@dataclass(frozen=True)
class FacTTT(Method):
    """FacT-TT: the increments of all weights as one tensor-train with U and V for all layers.

    W' = W + s V Sigma U, Sigma a core of r x r per D x D slice of W

    Jie and Deng, FacT, AAAI 2023 (arXiv:2212.03145), section 3. Slices of a block of ViT: query,
    key, value, proj, 4 of fc1 and 4 of fc2, twelve in all. Dropout 0.1 on the r activations after
    Sigma, V zero and the rest as `nn.Linear` starts are of the released code (the paper: V zero,
    others random). The authors choose r and s per task; here they are settings, by default the
    largest r of their search and s = 1 for every task.
    """

    rank: int = setting(16, at_least=1)
    scale: float = 1.0
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"rank": (1, 2, 4, 8, 16), "scale": (0.01, 0.1, 1.0, 10.0, 100.0)}

    merges = True

    def require(self, shape: Shape) -> None:
        super().require(shape)
        if not shape.uniform:
            raise UsageError("all layers share factors of one width; blocks here differ in width.")
        for block in shape.blocks:
            for name, ends in block.linears.items():
                if any(end % block.dim for end in ends):
                    raise UsageError(
                        f"{name} maps {ends[0]} to {ends[1]} channels and cannot be cut into "
                        f"slices of {block.dim} x {block.dim}."
                    )

    def attach(self, backbone: Backbone) -> None:
        dim = backbone.shape.blocks[0].dim
        u, v = nn.Linear(dim, self.rank, bias=False), nn.Linear(self.rank, dim, bias=False)
        nn.init.zeros_(v.weight)
        cores = self.cores(backbone.shape)
        for block in backbone.blocks:
            for name in block.shape.linears:
                increment = Increment(u, next(cores), v, self.scale, self.dropout)
                block.linear(name).deltas.append(increment)

    def cores(self, shape: Shape) -> Iterator[nn.Module]:
        """Sigma of each linear layer, in order."""
        for a, b in slices(shape):
            yield nn.Linear(a * self.rank, b * self.rank, bias=False)

    def num_trainable(self, shape: Shape) -> int:
        return 2 * shape.blocks[0].dim * self.rank + self.num_in_cores(shape)

    def num_in_cores(self, shape: Shape) -> int:
        return sum(a * b for a, b in slices(shape)) * self.rank**2
