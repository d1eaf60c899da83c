"""FacT-TK."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Shape
from petlbench.method import setting
from petlbench.methods.fact_tt import BIBTEX as BIBTEX
from petlbench.methods.fact_tt import FacTTT, slices


class TuckerCore(nn.Module):
    """Sigma_j = sum over k of C[:, :, k] P[k, j] for the slices j of one layer.

    (..., a r) -> (..., b r), where the layer maps a vectors of D to b of them.
    C (r, r, r) and P (r, all slices of the model) are the same in every layer.
    """

    def __init__(self, c: nn.Parameter, p: nn.Parameter, first: int, ends: tuple[int, int]) -> None:
        super().__init__()
        self.c, self.p = c, p
        self.first, self.ends = first, ends

    def forward(self, reads: Tensor) -> Tensor:
        a, b = self.ends
        sigma = self.c @ self.p[:, self.first : self.first + a * b]  # (r of U, r of V, slices)
        sigma = torch.unflatten(sigma, 2, (b, a)).permute(2, 1, 3, 0)  # -> (b, r of V, a, r of U)
        return nn.functional.linear(reads, sigma.flatten(2).flatten(0, 1))


@dataclass(frozen=True)
class FacTTK(FacTTT):
    """FacT-TK: the increments of all weights as one Tucker tensor, of which slices own r numbers.

    W' = W + s V Sigma_j U, Sigma_j = C x_3 P[:, j] for each D x D slice j of W

    Jie and Deng, FacT, AAAI 2023 (arXiv:2212.03145), section 3, where `fact_tt` is the other
    form: its slices, scale and dropout. V zero, U as `nn.Linear` starts, C and P xavier-uniform,
    as in the released code. That code reshapes the cores of fc1 and fc2 in an order that mixes
    their four slices; here, as in the paper, every slice has its own. Default: the largest r of
    the authors' search.
    """

    rank: int = setting(32, at_least=1)

    search = {"rank": (2, 4, 8, 16, 32), "scale": (0.01, 0.1, 1.0, 10.0, 100.0)}

    def cores(self, shape: Shape) -> Iterator[nn.Module]:
        r, number = self.rank, sum(a * b for a, b in slices(shape))
        c, p = nn.Parameter(torch.empty(r, r, r)), nn.Parameter(torch.empty(r, number))
        nn.init.xavier_uniform_(c)
        nn.init.xavier_uniform_(p)
        first = 0
        for a, b in slices(shape):
            yield TuckerCore(c, p, first, (a, b))
            first += a * b

    def num_in_cores(self, shape: Shape) -> int:
        return self.rank**3 + self.rank * sum(a * b for a, b in slices(shape))
