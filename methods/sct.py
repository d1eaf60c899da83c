"""SCT."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.errors import UsageError
from petlbench.method import Batches, Method, setting

BIBTEX = """
@article{zhao2023sct,
  title   = {{SCT}: A Simple Baseline for Parameter-Efficient Fine-Tuning via Salient Channels},
  author  = {Zhao, Henry Hengyuan and Wang, Pichao and Zhao, Yuyang and Luo, Hao and Wang, Fan and
             Shou, Mike Zheng},
  journal = {International Journal of Computer Vision},
  year    = {2023}
}
"""


class SalientChannels(nn.Module):
    """x[S] <- x[S] + s (W x[S] + b), the other channels as they are: (B, N, D) -> (B, N, D)."""

    index: Tensor

    def __init__(self, dim: int, channels: int, scale: float) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)
        self.scale = scale
        self.register_buffer("index", torch.arange(channels))  # S; `calibrate` finds another

    def forward(self, x: Tensor) -> Tensor:
        change = self.linear(x.index_select(2, self.index)) * self.scale
        return x.index_add(2, self.index, change.to(x.dtype))


@dataclass(frozen=True)
class SCT(Method):
    """SCT: a small linear layer on the most salient channels of the residual stream after MHSA.

    x <- x + DropPath(MHSA(LN x)); x[S] <- x[S] + s (W x[S] + b)

    Zhao et al., SCT: A Simple Baseline for Parameter-Efficient Fine-Tuning via Salient Channels,
    IJCV 2023 (arXiv:2309.08513). S are, per block, the channels of the frozen backbone's stream
    with the largest class-aware importance: the L2 norm over all patch tokens of a class's
    training images, averaged over classes. 96 channels, their place after attention, and W from a
    truncated Gaussian of 0.02 with b zero (so that it is no identity at start) follow the
    authors' code. Blocks narrower than 96 channels have all of them adapted.
    """

    channels: int = setting(96, at_least=1)
    scale: float = 1.0

    search = {"channels": (16, 48, 96, 192)}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        if shape.reads_text:
            raise UsageError("the importance of channels is measured on patches; a text has none.")

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            dim = block.shape.dim
            block.attn.out.append(SalientChannels(dim, min(self.channels, dim), self.scale))

    def calibrate(self, backbone: Backbone, batches: Batches) -> None:
        """Find S on the training images. Hooks read the stream, and keep it as the backbone's."""
        mode = backbone.training
        squares = [
            torch.zeros(backbone.num_classes, block.shape.dim, dtype=torch.float64)
            for block in backbone.blocks
        ]
        seen = torch.zeros(backbone.num_classes, dtype=torch.bool)
        streams: dict[int, Tensor] = {}

        def read(number: int, prefix: int, _: Any, inputs: tuple[Tensor], __: Any) -> Tensor:
            streams[number] = inputs[0][:, prefix:].float().square().sum(1).cpu()  # (B, D)
            return inputs[0]

        hooks = [
            block.attn.out[-1].register_forward_hook(
                partial(read, number, block.shape.num_prefix_tokens)
            )
            for number, block in enumerate(backbone.blocks)
        ]
        backbone.eval()
        with torch.no_grad():
            for images, labels in batches(64):
                backbone.encode(images)
                seen[labels.cpu()] = True
                for number, stream in streams.items():
                    squares[number].index_add_(0, labels.cpu(), stream.double())
        for hook in hooks:
            hook.remove()
        backbone.train(mode)
        for block, square in zip(backbone.blocks, squares, strict=True):
            module: Any = block.attn.out[-1]
            importance = square[seen].sqrt().mean(0)
            best = importance.topk(len(module.index)).indices
            module.index.copy_(best.sort().values)

    def num_trainable(self, shape: Shape) -> int:
        widths = (min(self.channels, block.dim) for block in shape.blocks)
        return sum(width * width + width for width in widths)

    def identity_at_init(self) -> bool:
        return False
