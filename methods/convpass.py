"""Convpass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn

from petlbench.backbone import Backbone, BlockShape, Branch, Shape
from petlbench.errors import UsageError
from petlbench.method import Method, setting


def quick_gelu(u: Tensor) -> Tensor:
    return u * torch.sigmoid(1.702 * u)


class ConvBypass(nn.Module):
    """s DropPath(Up(Drop(q(Conv3x3(q(Down z)))))): (B, N, D) -> (B, N, D).

    Patch tokens are convolved on their grid with zero padding; each prefix token ([cls],
    registers) on its own as a 1x1 image, so that only the centre tap acts on it.
    """

    def __init__(
        self,
        shape: BlockShape,
        hidden: int,
        scale: float,
        dropout: float,
        drop_path: float,
        init: str,
    ) -> None:
        super().__init__()
        self.down = nn.Linear(shape.dim, hidden)
        self.conv = nn.Conv2d(hidden, hidden, kernel_size=3, padding=1)
        self.up = nn.Linear(hidden, shape.dim)
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)
        self.scale = scale
        self.grid, self.prefix = shape.grid, shape.num_prefix_tokens
        nn.init.xavier_uniform_(self.down.weight)
        if init == "xavier":
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            nn.init.dirac_(self.conv.weight)
        assert self.conv.bias is not None
        for zero in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, z: Tensor) -> Tensor:
        u = quick_gelu(self.down(z))  # (B, N, h)
        prefix, patches = u[:, : self.prefix], u[:, self.prefix :]
        assert self.grid is not None
        patches = patches.transpose(1, 2).unflatten(2, self.grid)  # -> (B, h, H, W)
        patches = self.conv(patches).flatten(2).transpose(1, 2)  # -> (B, H * W, h)
        prefix = nn.functional.linear(prefix, self.conv.weight[:, :, 1, 1], self.conv.bias)
        u = quick_gelu(torch.cat([prefix, patches], dim=1))
        return self.drop_path(self.up(self.dropout(u))) * self.scale


@dataclass(frozen=True)
class Convpass(Method):
    """Convpass: a convolutional bottleneck parallel to MHSA and to the MLP, reading LN x.

    x <- x + DropPath(MHSA(LN x)) + s DropPath'(C(LN x)), and the same for the MLP

    Jie and Deng, Convolutional Bypasses Are Better Vision Transformer Adapters, 2022
    (arXiv:2207.07039), section 3.2. Activations, dropout 0.1, the bypass's own drop-path and the
    initialisation follow the authors' code. They choose s and the convolution's initialisation
    per task; here they are settings, by default s = 1 and xavier for every task.
    """

    hidden: int = setting(8, at_least=1)
    scale: float = 1.0
    dropout: float = setting(0.1, at_least=0, below=1)
    init: Literal["xavier", "identity"] = "xavier"

    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0), "init": ("xavier", "identity")}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        if any(block.grid is None for block in shape.blocks):
            raise UsageError("a text has no grid on which to convolve.")

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            for branch in block.branches:
                branch.parallel.append(self.bypass(branch, block.shape))

    def bypass(self, branch: Branch, shape: BlockShape) -> ConvBypass:
        """A new module for `branch`, with the branch's own drop-path rate."""
        rate = branch.drop_path_rate
        return ConvBypass(shape, self.hidden, self.scale, self.dropout, rate, self.init)

    def num_trainable(self, shape: Shape) -> int:
        return sum(2 * self.num_per_bypass(block) for block in shape.blocks)

    def num_per_bypass(self, block: BlockShape) -> int:
        h, d = self.hidden, block.dim
        return (h * d + h) + (9 * h * h + h) + (h * d + d)
