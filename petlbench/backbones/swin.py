"""Swin Transformers (timm's `swin_*`): windows, patch merging, no [cls].

Liu et al., Swin Transformer, ICCV 2021 (arXiv:2103.14030).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformer, window_partition, window_reverse
from torch import Tensor, nn

from petlbench.backbone import Backbone, Block
from petlbench.backbones.vit import transformer_block


class Swin(Backbone):
    """Sites see tokens (B, N, D), row by row, as in a plain transformer; blocks differ in N and D.

    Tokens in front of the grid (prompts) join every window; of what the windows make of them the
    mean goes on, and patch merging takes each of them for four equal ones: VPT (arXiv:2203.12119),
    section 3.2 and released code.
    """

    HEAD = "head.fc"

    @staticmethod
    def refuses(model: nn.Module) -> str:
        return "" if type(model) is SwinTransformer else "not a SwinTransformer"

    def wrap(self) -> Iterator[Block]:
        for stage in self.vit.layers:
            merging = not isinstance(stage.downsample, nn.Identity)
            entry: Merging | None = None
            if merging:
                entry = Merging(stage.downsample, stage.blocks[0].input_resolution)
                stage.downsample = nn.Identity()  # it is the first block's entry now
            for number, block in enumerate(stage.blocks):
                rows, columns = block.input_resolution
                wrapped = transformer_block(
                    block,
                    (rows, columns),
                    0,
                    rows * columns,
                    block.window_area,
                    Windows(block),
                    entry,
                )
                stage.blocks[number], entry = wrapped, None
                yield wrapped

    def embed(self, images: Tensor) -> Tensor:
        return cast(Tensor, self.vit.patch_embed(images)).flatten(1, 2)

    def pool(self, x: Tensor) -> Tensor:
        rows, columns = cast("tuple[int, int]", self.shape.blocks[-1].grid)
        x = self.vit.norm(x[:, -rows * columns :]).reshape(len(x), rows, columns, -1)
        return cast(Tensor, self.vit.forward_head(x, pre_logits=True))

    def tail(self) -> list[nn.Module]:
        return [self.vit.norm, self.vit.head]

    def geometry(self) -> tuple[tuple[int, int], tuple[int, int]]:
        embed = self.vit.patch_embed
        return tuple(embed.img_size), tuple(embed.patch_size)


class Merging(nn.Module):
    """2 x 2 neighbours into one token of twice the width: (B, P + N, D) -> (B, P + N / 4, 2 D)."""

    def __init__(self, merging: Any, after: tuple[int, int]) -> None:
        super().__init__()
        self.merging = merging
        self.grid = (2 * after[0], 2 * after[1])

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.grid
        front, x = x[:, : -rows * columns], x[:, -rows * columns :]
        x = self.merging(x.reshape(len(x), rows, columns, -1)).flatten(1, 2)
        if front.shape[1]:
            front = self.merging.reduction(self.merging.norm(front.repeat(1, 1, 4)))
        return torch.cat([front.to(x.dtype), x], dim=1) if front.shape[1] else x


class Windows(nn.Module):
    """(Shifted-)window attention with relative position bias: (B, P + N, D) -> the same.

    Tokens in front of the grid have no position: their bias is zero, and no mask hides them.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.attn = block.attn
        self.grid, self.window, self.shift = (
            tuple(block.input_resolution),
            tuple(block.window_size),
            tuple(block.shift_size),
        )
        self.register_buffer("mask", block.attn_mask, persistent=False)

    def forward(self, u: Tensor) -> Tensor:
        (rows, columns), (height, width) = self.grid, self.window
        front, u = u[:, : -rows * columns], u[:, -rows * columns :]
        u = u.reshape(len(u), rows, columns, -1)
        u = torch.roll(u, (-self.shift[0], -self.shift[1]), (1, 2)) if any(self.shift) else u
        u = F.pad(u, (0, 0, 0, -columns % width, 0, -rows % height))
        padded = u.shape[1], u.shape[2]
        u = window_partition(u, self.window).flatten(1, 2)  # (B W, n, D)
        number, prompts = len(u) // len(front), front.shape[1]
        u = torch.cat([front.repeat_interleave(number, 0), u], dim=1)
        y = self._attend(u, prompts)
        front = y[:, :prompts].reshape(len(y) // number, number, prompts, y.shape[2]).mean(1)
        y = y[:, prompts:].reshape(len(y), height, width, -1)
        y = window_reverse(y, self.window, *padded)
        y = y[:, :rows, :columns]
        y = torch.roll(y, self.shift, (1, 2)) if any(self.shift) else y
        return torch.cat([front, y.flatten(1, 2)], dim=1)

    def _attend(self, u: Tensor, prompts: int) -> Tensor:
        """Within windows (B W, P + n, D), windows of an image next to each other."""
        attn = self.attn
        bias = attn._get_rel_pos_bias()  # (1, heads, n, n)
        if isinstance(self.mask, Tensor):  # (W, n, n)
            bias = bias + self.mask[:, None]
        bias = F.pad(bias, (prompts, 0, prompts, 0))
        q, k, v = attn.qkv(u).unflatten(2, (3, attn.num_heads, -1)).permute(2, 0, 3, 1, 4)
        scores = (q * attn.scale) @ k.transpose(-2, -1)  # (B W, heads, P + n, P + n)
        scores = scores.unflatten(0, (-1, len(bias))) + bias
        y = attn.attn_drop(scores.flatten(0, 1).softmax(-1)) @ v
        return cast(Tensor, attn.proj_drop(attn.proj(y.transpose(1, 2).flatten(2))))
