"""Mona."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, BlockShape, Shape
from petlbench.method import Method, setting
from petlbench.methods.convpass import convolve, require_grid

BIBTEX = """
@inproceedings{yin2025mona,
  title     = {5\\%>100\\%: Breaking Performance Shackles of Full Fine-Tuning on Visual Recognition
               Tasks},
  author    = {Yin, Dongshuo and Hu, Leiyi and Li, Bin and Zhang, Youqun and Yang, Xue},
  booktitle = {CVPR},
  year      = {2025}
}
"""

KERNELS = (3, 5, 7)


class Cognitive(nn.Module):
    """x + Up(Drop(GELU(M(Down(g * LN x + g_x * x))))): (B, N, D) -> (B, N, D).

    M(u) = t + Conv1x1(t), t = u + the mean of a depth-wise 3x3, 5x5 and 7x7 convolution of u.
    """

    def __init__(self, shape: BlockShape, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(shape.dim)
        self.gamma = nn.Parameter(torch.full((shape.dim,), 1e-6))
        self.gamma_x = nn.Parameter(torch.ones(shape.dim))
        self.down = nn.Linear(shape.dim, hidden)
        self.depthwise = nn.ModuleList(
            nn.Conv2d(hidden, hidden, kernel_size=size, padding=size // 2, groups=hidden)
            for size in KERNELS
        )
        self.mix = nn.Linear(hidden, hidden)  # the 1x1 convolution
        self.up = nn.Linear(hidden, shape.dim)
        self.dropout = nn.Dropout(dropout)
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        u = self.down(self.gamma * self.norm(x) + self.gamma_x * x)  # (B, N, h)
        t = u
        for conv in self.depthwise:
            assert isinstance(conv, nn.Conv2d)
            t = t + convolve(conv, u, self.shape) / len(KERNELS)
        return x + self.up(self.dropout(F.gelu(t + self.mix(t))))


@dataclass(frozen=True)
class Mona(Method):
    """Mona: a bottleneck of depth-wise 3x3, 5x5 and 7x7 convolutions after MHSA and after the MLP.

    x <- x + DropPath(MHSA(LN x)); x <- x + A(x), and the same for the MLP

    Yin, Hu, Li, Zhang and Yang, 5%>100%: Breaking Performance Shackles of Full Fine-Tuning on
    Visual Recognition Tasks, CVPR 2025 (arXiv:2408.08345), section 3. Width 64, the place of
    GELU and of dropout 0.1, its own LayerNorm weighed by 1e-6 beside x, and PyTorch's default
    initialisation follow the authors' code; it is therefore no identity at start.

    The authors have Swin only, which has no [cls]. Here, as in Convpass, every prefix token is
    convolved on its own, as an image of one pixel.
    """

    hidden: int = setting(64, at_least=1)
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"hidden": (8, 16, 32, 64)}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        require_grid(shape)

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            for branch in block.branches:
                branch.out.append(Cognitive(block.shape, self.hidden, self.dropout))

    def num_trainable(self, shape: Shape) -> int:
        h = self.hidden
        convolutions = sum(size * size * h + h for size in KERNELS) + h * h + h
        # norm, gamma and gamma_x; Down; Up
        places = (4 * b.dim + (h * b.dim + h) + (h * b.dim + b.dim) for b in shape.blocks)
        return sum(2 * (place + convolutions) for place in places)

    def identity_at_init(self) -> bool:
        return False
