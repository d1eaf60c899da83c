"""DTL and DTL+."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, BlockShape, Shape
from petlbench.errors import UsageError
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{fu2024dtl,
  title     = {{DTL}: Disentangled Transfer Learning for Visual Recognition},
  author    = {Fu, Minghao and Zhu, Ke and Wu, Jianxin},
  booktitle = {AAAI},
  year      = {2024}
}
"""


class Side(nn.Module):
    """h <- h + B A x, x the block's input; y <- y + [conv] (h * sigmoid(beta h)) where `feeds`.

    All (B, N, D). The convolution, if there is one, is for patches; prefix tokens pass it by.
    """

    def __init__(
        self,
        shape: BlockShape,
        rank: int,
        beta: float,
        first: bool,
        feeds: bool,
        conv: nn.Conv2d | None,
    ) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(rank, shape.dim))
        self.b = nn.Parameter(torch.zeros(shape.dim, rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))
        self.conv = conv
        self.beta, self.first, self.feeds, self.shape = beta, first, feeds, shape

    def forward(self, x: Tensor, y: Tensor, h: Tensor | None) -> tuple[Tensor, Tensor]:
        change = F.linear(F.linear(x, self.a), self.b)
        h = change if self.first or h is None else h + change
        if not self.feeds:
            return y, h
        feedback = h * torch.sigmoid(self.beta * h)
        if self.conv is not None:
            assert self.shape.grid is not None
            front = self.shape.num_prefix_tokens
            prefix, patches = feedback[:, :front], feedback[:, front:]
            patches = patches.transpose(1, 2).reshape(len(y), y.shape[2], *self.shape.grid)
            patches = self.conv(patches).flatten(2).transpose(1, 2)
            feedback = torch.cat([prefix, patches], dim=1)
        return y + feedback, h


@dataclass(frozen=True)
class DTL(Method):
    """DTL: a low-rank side state gathers from every block and feeds back into the later ones.

    h_l = h_(l-1) + B_l A_l x_l; from block l = start * L on, x_(l+1) = Block_l(x_l) + f(h_l),
    f(h) = h * sigmoid(beta h)

    Fu, Zhu and Wu, DTL: Disentangled Transfer Learning for Visual Recognition, AAAI 2024
    (arXiv:2312.07856). With `conv`, DTL+: f is followed by a depth-wise 3x3 convolution without
    bias that all blocks share. Rank 2, beta 100, A Kaiming-uniform and B zero, feeding back from
    the seventh of twelve blocks, and the convolution's default initialisation and its passing by
    [cls] follow the authors' code. In front of the first block that is fed back no gradient flows
    through the backbone. In Swin, as there, every stage starts a state and shares a convolution
    of its own; a stage that ends before the feedback begins gets none.

    Deviations: `start` is a share of the depth, so that it means the same for every backbone; the
    feature is the backbone's own, pooled as it was trained, where their code takes the mean of
    the patches before the last LayerNorm; prefix tokens other than [cls] are treated as it is.
    They train without drop-path, which is the protocol's to say.
    """

    rank: int = setting(2, at_least=1)
    start: float = setting(0.5, at_least=0, below=1)
    beta: float = setting(100.0, above=0)
    conv: bool = False

    search = {"rank": (1, 2, 4, 8), "conv": (False, True)}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        if self.conv and shape.reads_text:
            raise UsageError("a text has no grid on which to convolve; dtl.conv=false needs none.")

    def attach(self, backbone: Backbone) -> None:
        blocks = backbone.blocks
        for stage in self.stages(backbone.shape):
            dim, conv = blocks[stage[0]].shape.dim, None
            if self.conv:
                conv = nn.Conv2d(dim, dim, kernel_size=3, padding=1, groups=dim, bias=False)
            for number in stage:
                first, feeds = number == stage[0], number >= self.begin(len(blocks))
                shared = conv if feeds else None
                side = Side(blocks[number].shape, self.rank, self.beta, first, feeds, shared)
                blocks[number].side.append(side)

    def begin(self, depth: int) -> int:
        """The number of the first block that is fed back."""
        return int(self.start * depth)

    def stages(self, shape: Shape) -> list[list[int]]:
        """Numbers of consecutive blocks of one width and grid, without stages never fed back."""
        blocks = shape.blocks
        runs = groupby(range(len(blocks)), lambda i: (blocks[i].dim, blocks[i].num_tokens))
        stages = [list(run) for _, run in runs]
        return [stage for stage in stages if stage[-1] >= self.begin(len(blocks))]

    def num_trainable(self, shape: Shape) -> int:
        dims = [[shape.blocks[number].dim for number in stage] for stage in self.stages(shape)]
        convolutions = sum(9 * stage[0] for stage in dims) if self.conv else 0
        return sum(2 * self.rank * dim for stage in dims for dim in stage) + convolutions
