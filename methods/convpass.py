"""Convpass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, Block, BlockShape, Branch, Shape
from petlbench.errors import UsageError
from petlbench.method import Method, setting

BIBTEX = """
@article{jie2022convpass,
  title   = {Convolutional Bypasses Are Better Vision Transformer Adapters},
  author  = {Jie, Shibo and Deng, Zhi-Hong},
  journal = {arXiv preprint arXiv:2207.07039},
  year    = {2022}
}
"""


def quick_gelu(u: Tensor) -> Tensor:
    return u * torch.sigmoid(1.702 * u)


def convolve(conv: nn.Conv2d, u: Tensor, shape: BlockShape) -> Tensor:
    """Zero-padded convolution of tokens on their grid: (B, N, h) -> (B, N, h).

    Each prefix token ([cls], registers) is convolved on its own, as an image of one pixel: only
    the centre tap acts on it.
    """
    assert shape.grid is not None
    prefix, patches = u[:, : shape.num_prefix_tokens], u[:, shape.num_prefix_tokens :]
    patches = patches.transpose(1, 2).reshape(len(u), u.shape[2], *shape.grid)  # (B, h, H, W)
    patches = conv(patches).flatten(2).transpose(1, 2)  # -> (B, H * W, h)
    if shape.num_prefix_tokens == 0:
        return patches
    row, column = (size // 2 for size in conv.kernel_size)
    centre = conv.weight[:, :, row, column]
    alone = F.conv1d(prefix.transpose(1, 2), centre[..., None], conv.bias, groups=conv.groups)
    return torch.cat([alone.transpose(1, 2), patches], dim=1)


def require_grid(shape: Shape) -> None:
    if shape.reads_text:
        raise UsageError("a text has no grid on which to convolve.")


class ConvBypass(nn.Module):
    """C(z) = s DropPath(Up(Drop(q(Conv(q(Down z)))))): (B, N, D) -> (B, N, D).

    With `sequential`, z + C(z).
    """

    def __init__(self, shape: BlockShape, drop_path: float, method: Convpass) -> None:
        super().__init__()
        size = {"1x1": 1, "3x3": 3}[method.kernel]
        self.down = nn.Linear(shape.dim, method.hidden)
        self.conv = nn.Conv2d(method.hidden, method.hidden, kernel_size=size, padding=size // 2)
        self.up = nn.Linear(method.hidden, shape.dim)
        self.dropout = nn.Dropout(method.dropout)
        self.drop_path = DropPath(drop_path)
        self.scale = method.scale
        self.sequential = method.placement == "sequential"
        self.shape = shape
        nn.init.xavier_uniform_(self.down.weight)
        if method.init == "xavier":
            nn.init.xavier_uniform_(self.conv.weight)
        else:
            nn.init.dirac_(self.conv.weight)
        assert self.conv.bias is not None
        for zero in (self.down.bias, self.conv.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, z: Tensor) -> Tensor:
        u = quick_gelu(self.down(z))  # (B, N, h)
        u = quick_gelu(convolve(self.conv, u, self.shape))
        y = self.drop_path(self.up(self.dropout(u))) * self.scale
        return z + y if self.sequential else y


@dataclass(frozen=True)
class Convpass(Method):
    """Convpass: a convolutional bottleneck parallel to MHSA and to the MLP, reading LN x.

    x <- x + DropPath(MHSA(LN x)) + s DropPath'(C(LN x)), and the same for the MLP

    Jie and Deng, Convolutional Bypasses Are Better Vision Transformer Adapters, 2022
    (arXiv:2207.07039), section 3.2. Activations, dropout 0.1, the bypass's own drop-path and the
    initialisation follow the authors' code. They choose s and the convolution's initialisation
    per task; here they are settings, by default s = 1 and xavier for every task.

    The variants of the paper's tables 4 and 5 are settings too: `site` attn (convpass_attn) or
    mlp alone; `kernel` 1x1; `placement` sequential, where C reads what the sub-layer put out,
    y = DropPath(MHSA(LN x)), and x <- x + y + s DropPath'(C(y)). The code has none of them but
    site=attn; that C reads y after drop-path, as the Adapter of these tables does, is our choice.
    """

    hidden: int = setting(8, at_least=1)
    scale: float = 1.0
    dropout: float = setting(0.1, at_least=0, below=1)
    init: Literal["xavier", "identity"] = "xavier"
    kernel: Literal["3x3", "1x1"] = "3x3"
    site: Literal["both", "attn", "mlp"] = "both"
    placement: Literal["parallel", "sequential"] = "parallel"

    search = {"scale": (0.01, 0.1, 1.0, 10.0, 100.0), "init": ("xavier", "identity")}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        require_grid(shape)

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            for branch in self.branches(block):
                bypass = ConvBypass(block.shape, branch.drop_path_rate, self)
                (branch.parallel if self.placement == "parallel" else branch.after).append(bypass)

    def branches(self, block: Block) -> tuple[Branch, ...]:
        """Those that get a bypass, which drops at the branch's own drop-path rate."""
        return {"both": block.branches, "attn": (block.attn,), "mlp": (block.mlp,)}[self.site]

    def num_trainable(self, shape: Shape) -> int:
        h, taps = self.hidden, {"1x1": 1, "3x3": 9}[self.kernel]
        places = 2 if self.site == "both" else 1
        convolution = taps * h * h + h
        return sum(
            places * (2 * h * block.dim + h + block.dim + convolution) for block in shape.blocks
        )
