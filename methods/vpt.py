"""VPT-deep."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, BlockShape, Shape
from petlbench.errors import UsageError
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{jia2022vpt,
  title     = {Visual Prompt Tuning},
  author    = {Jia, Menglin and Tang, Luming and Chen, Bor-Chun and Cardie, Claire and
               Belongie, Serge and Hariharan, Bharath and Lim, Ser-Nam},
  booktitle = {European Conference on Computer Vision},
  year      = {2022}
}
"""


class Prompts(nn.Module):
    """p learned tokens P put after the prefix tokens, in place of `replaces` earlier ones.

    [cls; P'; patches] -> [cls; P; patches]: (B, N, D) -> (B, N - replaces + p, D). Prompts have
    no position embedding. Initialisation: uniform(-bound, bound).
    """

    def __init__(
        self, tokens: int, replaces: int, dropout: float, block: BlockShape, bound: float
    ) -> None:
        super().__init__()
        self.prompts = nn.Parameter(torch.empty(tokens, block.dim).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)
        self.prefix = block.num_prefix_tokens
        self.replaces = replaces

    def forward(self, x: Tensor) -> Tensor:
        prompts = self.dropout(self.prompts.expand(len(x), -1, -1))
        rest = x[:, self.prefix + self.replaces :]
        return torch.cat([x[:, : self.prefix], prompts.to(x.dtype), rest], dim=1)


class WithoutPrompts(nn.Module):
    """Removes the prompts before pooling: (B, N + p, D) -> (B, N, D)."""

    def __init__(self, tokens: int, prefix: int) -> None:
        super().__init__()
        self.tokens, self.prefix = tokens, prefix

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x[:, : self.prefix], x[:, self.prefix + self.tokens :]], dim=1)


def prompt_bound(patch_size: tuple[int, int], dim: int) -> float:
    """Within which prompts start: sqrt(6 / (3 * patch area + D)), D the width of the embedding."""
    height, width = patch_size
    return math.sqrt(6 / (3 * height * width + dim))


def attach_prompts(backbone: Backbone, tokens: int, dropout: float, deep: bool) -> None:
    """Prompts before the first block or before every one; no drop-path in the encoder."""
    backbone.drop_path_off()
    blocks = backbone.blocks
    bound = prompt_bound(backbone.shape.patch_size, blocks[0].shape.dim)
    for i, block in enumerate(blocks if deep else blocks[:1]):
        block.tokens.append(Prompts(tokens, tokens if i else 0, dropout, block.shape, bound))
    last = blocks[-1]
    last.mlp.out.append(WithoutPrompts(tokens, last.shape.num_prefix_tokens))


def require_images(shape: Shape) -> None:
    if shape.reads_text:
        raise UsageError("prompts would move the token at which a text tower is read.")


@dataclass(frozen=True)
class VPT(Method):
    """VPT-deep: before every block, p learned tokens replace the previous block's prompt outputs.

    Jia et al., Visual Prompt Tuning, ECCV 2022 (arXiv:2203.12119), section 3.2, equation 6;
    initialisation, dropout 0.1 and the encoder in evaluation mode (no drop-path) as in the
    authors' code. Deviation: they search p per task; here it is one setting (default 10).
    """

    tokens: int = setting(10, at_least=1)
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"tokens": (1, 5, 10, 50, 100)}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        require_images(shape)

    def attach(self, backbone: Backbone) -> None:
        attach_prompts(backbone, self.tokens, self.dropout, deep=True)

    def num_trainable(self, shape: Shape) -> int:
        return sum(self.tokens * block.dim for block in shape.blocks)

    def identity_at_init(self) -> bool:
        return False
