"""Bi-AdaptFormer: an adapter of few-bit weights."""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{jie2023binary,
  title     = {Revisiting the Parameter Efficiency of Adapters from the Perspective of Precision
               Redundancy},
  author    = {Jie, Shibo and Wang, Haoqing and Deng, Zhi-Hong},
  booktitle = {ICCV},
  year      = {2023}
}
"""


@functools.cache
def levels(bits: int) -> tuple[float, ...]:
    """The 2^bits values that a standardised weight may take; +-0.6745 for one bit.

    Thresholds lie between neighbouring levels, and each level is the median of a Gaussian within
    its cell: what 500 rounds of that make of zeros, as in the authors' code.
    """
    gauss = NormalDist()
    found = [0.0] * 2**bits
    for _ in range(500):
        bounds = [0.0, *(gauss.cdf((a + b) / 2) for a, b in pairwise(found)), 1.0]
        found = [gauss.inv_cdf((a + b) / 2) for a, b in pairwise(bounds)]
    return tuple(found)


def codes(weight: Tensor, bits: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The standardised weight, the number of its nearest level, mean and standard deviation."""
    mean, std = weight.mean(), weight.std()
    normal = (weight - mean) / (std + 1e-5)
    values = weight.new_tensor(levels(bits))
    nearest = torch.bucketize(normal.detach(), (values[1:] + values[:-1]) / 2)
    return normal, nearest, mean, std


def quantize(weight: Tensor, bits: int) -> Tensor:
    """Mean + std times the nearest level; the gradient passes the rounding as if it were none."""
    normal, nearest, mean, std = codes(weight, bits)
    rounded = weight.new_tensor(levels(bits))[nearest]
    return (rounded + (normal - normal.detach())) * std + mean


def pack(weight: Tensor, bits: int) -> bytes:
    """What is stored of a matrix: `bits` per weight, then mean and standard deviation in fp32."""
    _, nearest, mean, std = codes(weight.detach().float().cpu(), bits)
    digits = (nearest.numpy().reshape(-1, 1) >> np.arange(bits)) & 1
    return np.packbits(digits.astype(bool)).tobytes() + struct.pack("<2f", mean, std)


def unpack(data: bytes, shape: tuple[int, ...], bits: int) -> Tensor:
    """The quantised matrix of that shape from what `pack` made of it."""
    packed, count = np.frombuffer(data[:-8], dtype=np.uint8), math.prod(shape)
    digits = np.unpackbits(packed, count=count * bits).reshape(-1, bits)
    nearest = torch.from_numpy((digits.astype(np.int64) << np.arange(bits)).sum(1))
    mean, std = (torch.tensor(value) for value in struct.unpack("<2f", data[-8:]))
    return (torch.tensor(levels(bits))[nearest] * std + mean).reshape(shape)


def packed_bytes(trained: dict[str, Tensor], bits: int) -> int:
    """Bytes of the packed matrices, and of the head in fp32."""
    return sum(
        4 * tensor.numel() if name.startswith("head.") else math.ceil(tensor.numel() * bits / 8) + 8
        for name, tensor in trained.items()
    )


class QuantizedBottleneck(nn.Module):
    """s Q(Up) Drop(f(Q(Down) x)): (B, N, D) -> (B, N, out); f ReLU, or nothing if `linear`."""

    def __init__(
        self,
        dim: int,
        out: int,
        hidden: int,
        scale: float,
        dropout: float,
        bits: int,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden, bias=False)
        self.up = nn.Linear(hidden, out, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.scale, self.bits, self.linear = scale, bits, linear
        # not zero: of a matrix without spread there is nothing to quantise
        nn.init.trunc_normal_(self.up.weight, std=0.001, a=-0.002, b=0.002)

    def forward(self, x: Tensor) -> Tensor:
        u = F.linear(x, quantize(self.down.weight, self.bits))
        u = self.dropout(u if self.linear else torch.relu(u))
        return F.linear(u, quantize(self.up.weight, self.bits)) * self.scale


@dataclass(frozen=True)
class BiAdaptFormer(Method):
    """Bi-AdaptFormer: AdaptFormer without biases, its weights quantised to one bit.

    x <- x + DropPath(MLP(LN x)) + s Q(Up) Drop(ReLU(Q(Down) x))

    Jie, Wang and Deng, Revisiting the Parameter Efficiency of Adapters from the Perspective of
    Precision Redundancy, ICCV 2023 (arXiv:2307.16867). Trained are full-precision weights that
    every forward pass quantises, with a straight-through gradient; stored are their bits, and
    mean and standard deviation of each matrix. Width 32, dropout 0.1, the levels, the spread
    that Up starts with (so that it is no identity) and the place outside drop-path follow the
    authors' code. They choose s per task; here it is a setting, by default 1. Their one-bit head
    is left out: the head is the same for every method.
    """

    hidden: int = setting(32, at_least=1)
    bits: int = setting(1, at_least=1, at_most=8)
    scale: float = 1.0
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"hidden": (1, 8, 32), "scale": (0.01, 0.1, 1.0, 10.0, 100.0)}

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            dim = block.shape.dim
            block.mlp.parallel_residual.append(
                QuantizedBottleneck(dim, dim, self.hidden, self.scale, self.dropout, self.bits)
            )

    def num_trainable(self, shape: Shape) -> int:
        return sum(2 * self.hidden * block.dim for block in shape.blocks)

    def identity_at_init(self) -> bool:
        return False

    def stored_bytes(self, trained: dict[str, Tensor]) -> int:
        return packed_bytes(trained, self.bits)
