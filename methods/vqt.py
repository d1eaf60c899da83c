"""VQT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention import Attention
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, Block, Shape
from petlbench.errors import UsageError
from petlbench.method import Method, setting
from petlbench.methods.vpt import prompt_bound

BIBTEX = """
@inproceedings{tu2023vqt,
  title     = {Visual Query Tuning: Towards Effective Usage of Intermediate Representations for
               Parameter and Memory Efficient Transfer Learning},
  author    = {Tu, Cheng-Hao and Mai, Zheda and Chao, Wei-Lun},
  booktitle = {CVPR},
  year      = {2023}
}
"""


class Queries(nn.Module):
    """Runs learned tokens through a block as queries only: (B, N, D) -> (B, T, D).

    They attend to the block's own tokens and to nothing else, and no token attends to them.
    What the block makes of them is appended to the state; its tokens stay what they were.
    """

    def __init__(self, block: Block, tokens: int, dropout: float, bound: float) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(tokens, block.shape.dim).uniform_(-bound, bound))
        self.dropout = nn.Dropout(dropout)
        self.frozen = (block,)  # in a tuple, so as not to be a part of itself

    def forward(
        self, x: Tensor, y: Tensor, state: tuple[Tensor, ...] | None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        (block,) = self.frozen
        p = self.dropout(self.queries.expand(len(x), -1, -1))
        attn = block.attn
        p = p + attn.layer_scale(self.attend(attn.layer, attn.norm(p), attn.norm(x)))
        return y, (*(state or ()), block.mlp(p))

    @staticmethod
    def attend(layer: Any, p: Tensor, x: Tensor) -> Tensor:
        """The layer's own attention from p to x: (B, T, D), (B, N, D) -> (B, T, D)."""
        weight, bias = layer.qkv.effective()
        dim = len(weight) // 3
        of_q, of_kv = (None, None) if bias is None else (bias[:dim], bias[dim:])
        split = (layer.num_heads, dim // layer.num_heads)
        q = F.linear(p, weight[:dim], of_q).reshape(*p.shape[:2], *split).transpose(1, 2)
        kv = F.linear(x, weight[dim:], of_kv).reshape(*x.shape[:2], 2, *split)
        k, v = kv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D / heads)
        scores = layer.q_norm(q) * layer.scale @ layer.k_norm(k).transpose(-2, -1)
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return layer.proj(layer.norm(y))


class Concatenated(nn.Module):
    """Feature and query outputs of every block, each scaled to length 1: (B, D + L T D)."""

    def forward(self, feature: Tensor, outputs: tuple[Tensor, ...]) -> Tensor:
        parts = [feature, *(output.flatten(1) for output in outputs)]
        return torch.cat([F.normalize(part, dim=1) for part in parts], dim=1)


@dataclass(frozen=True)
class VQT(Method):
    """VQT: learned query tokens read every block; the head sees what they found, and [cls].

    f <- [f / |f|; q_1 / |q_1|; ...; q_L / |q_L|], q_l = block l of its queries over its tokens

    Tu, Mai and Chao, Visual Query Tuning, CVPR 2023 (arXiv:2212.03220), section 3. The tokens of
    the backbone never change, so no gradient passes it. One query per block, initialisation,
    dropout 0.1, the encoder in evaluation mode (no drop-path) and the order and scaling of the
    parts follow the authors' code. The head grows with the number of blocks; it is counted as
    head. Their selection of features by a sparse head is left out, and the feature is the
    backbone's own, pooled as it was trained, where they have [cls].
    """

    tokens: int = setting(1, at_least=1)
    dropout: float = setting(0.1, at_least=0, below=1)

    search = {"tokens": (1, 5, 10)}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        if shape.reads_text:
            raise UsageError("queries in front of a text would need its causal mask.")
        if any(block.windowed for block in shape.blocks):
            raise UsageError("queries read all tokens of a block; here it attends within windows.")

    def attach(self, backbone: Backbone) -> None:
        backbone.drop_path_off()
        for block in backbone.blocks:
            layer: Any = block.attn.layer
            if type(layer) is not Attention or getattr(layer, "gate", None) is not None:
                raise UsageError("queries of their own are known for plain attention only.")
            bound = prompt_bound(backbone.shape.patch_size, block.shape.dim)
            block.side.append(Queries(block, self.tokens, self.dropout, bound))
        backbone.features.append(Concatenated())
        found = sum(self.tokens * block.shape.dim for block in backbone.blocks)
        backbone.put_head(backbone.shape.num_features + found)

    def num_trainable(self, shape: Shape) -> int:
        return sum(self.tokens * block.dim for block in shape.blocks)

    def identity_at_init(self) -> bool:
        return False
