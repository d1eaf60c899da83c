"""A pre-norm vision transformer in evaluation mode, written out from its formulas.

x: (B, N, D). No `nn.Module`, no `torch.nn.functional`: parameters come as a dict of tensors,
optional parts (registers, LayerScale, norms, biases) are there when their tensors are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Params = Mapping[str, Tensor]


@dataclass(frozen=True)
class Vit:
    """What the tensors do not tell."""

    patch: tuple[int, int]  # pixels
    grid: tuple[int, int]  # patches
    heads: int
    pool: str = "token"  # or "avg"
    eps: float = 1e-6  # of every LayerNorm; no checkpoint stores it


def depth(p: Params) -> int:
    return 1 + max(int(name.split(".")[2]) for name in p if name.startswith("vit.blocks."))


def num_prefix(p: Params) -> int:
    """[cls] and register tokens."""
    return sum(p[name].shape[1] for name in ("vit.cls_token", "vit.reg_token") if name in p)


def linear(p: Params, name: str, x: Tensor) -> Tensor:
    y = torch.einsum("...i,oi->...o", x, p[f"{name}.weight"])
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def layer_norm(p: Params, name: str, x: Tensor, eps: float) -> Tensor:
    """gamma (x - mean) / sqrt(variance + eps) + beta, with the biased variance."""
    centred = x - x.sum(-1, keepdim=True) / x.shape[-1]
    variance = (centred * centred).sum(-1, keepdim=True) / x.shape[-1]
    return p[f"{name}.weight"] * centred / (variance + eps).sqrt() + p[f"{name}.bias"]


def optional_norm(p: Params, name: str, x: Tensor, eps: float) -> Tensor:
    return layer_norm(p, name, x, eps) if f"{name}.weight" in p else x


def gelu(x: Tensor) -> Tensor:
    """x Phi(x), the exact one."""
    return x * (1 + torch.erf(x / math.sqrt(2))) / 2


def embed(p: Params, images: Tensor, vit: Vit) -> Tensor:
    """(B, 3, H, W) -> [cls; registers; patches], patches row by row, with position embedding."""
    (rows, columns), (height, width) = vit.grid, vit.patch
    # pixel (c, row * height + y, column * width + x) -> entry (c, y, x) of patch (row, column)
    pixels = images.reshape(len(images), 3, rows, height, columns, width)
    pixels = torch.einsum("bcrykx->brkcyx", pixels)
    pixels = pixels.reshape(len(images), rows * columns, 3 * height * width)
    x = torch.einsum("bnp,dp->bnd", pixels, p["vit.patch_embed.proj.weight"].flatten(1))
    if "vit.patch_embed.proj.bias" in p:
        x = x + p["vit.patch_embed.proj.bias"]
    position = p["vit.pos_embed"]
    if position.shape[1] == rows * columns:  # positions of patches only
        x = x + position
        position = torch.zeros_like(position[:, :1])
    prefix = [
        p[name].expand(len(images), -1, -1)
        for name in ("vit.cls_token", "vit.reg_token")
        if name in p
    ]
    x = torch.cat([*prefix, x], dim=1) + position
    return optional_norm(p, "vit.norm_pre", x, vit.eps)


def attention(p: Params, name: str, z: Tensor, heads: int, qkv: Tensor | None = None) -> Tensor:
    """proj(concat over heads of softmax(q k^T / sqrt(width)) v); `qkv` in place of its weight."""
    dim = z.shape[-1]
    width = dim // heads
    weight = p[f"{name}.qkv.weight"] if qkv is None else qkv
    bias = p.get(f"{name}.qkv.bias", z.new_zeros(3 * dim))
    outputs = []
    for head in range(heads):
        q, k, v = (
            torch.einsum("bni,oi->bno", z, weight[rows]) + bias[rows]
            for rows in (
                slice(third * dim + head * width, third * dim + (head + 1) * width)
                for third in range(3)
            )
        )
        scores = torch.einsum("bnc,bmc->bnm", q, k) / math.sqrt(width)
        exponentials = (scores - scores.amax(-1, keepdim=True).detach()).exp()
        shares = exponentials / exponentials.sum(-1, keepdim=True)
        outputs.append(torch.einsum("bnm,bmc->bnc", shares, v))
    return linear(p, f"{name}.proj", torch.cat(outputs, dim=-1))


def conv3x3(p: Params, name: str, u: Tensor, prefix: int, grid: tuple[int, int]) -> Tensor:
    """y[r, c] = b + sum over the nine taps of W[:, :, dr + 1, dc + 1] u[r + dr, c + dc].

    Outside the grid u is zero. A prefix token is an image of its own, of one pixel: only the
    centre tap reaches it.
    """
    weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
    rows, columns = grid
    alone = torch.einsum("bni,oi->bno", u[:, :prefix], weight[:, :, 1, 1])
    canvas = u.new_zeros(len(u), rows + 2, columns + 2, u.shape[-1])  # a border of zeros
    canvas[:, 1:-1, 1:-1] = u[:, prefix:].reshape(len(u), rows, columns, -1)
    patches = torch.zeros_like(canvas[:, 1:-1, 1:-1])
    for dr in (-1, 0, 1):
        for dc in (-1, 0, 1):
            shifted = canvas[:, 1 + dr : 1 + dr + rows, 1 + dc : 1 + dc + columns]
            tap = weight[:, :, dr + 1, dc + 1]
            patches = patches + torch.einsum("brci,oi->brco", shifted, tap)
    return torch.cat([alone, patches.flatten(1, 2)], dim=1) + bias


def layer_scale(p: Params, name: str, y: Tensor) -> Tensor:
    return y * p[f"{name}.gamma"] if f"{name}.gamma" in p else y


def ln1(p: Params, i: int, x: Tensor, vit: Vit) -> Tensor:
    return layer_norm(p, f"vit.blocks.{i}.attn.norm", x, vit.eps)


def ln2(p: Params, i: int, x: Tensor, vit: Vit) -> Tensor:
    return layer_norm(p, f"vit.blocks.{i}.mlp.norm", x, vit.eps)


def mhsa(p: Params, i: int, z: Tensor, vit: Vit, qkv: Tensor | None = None) -> Tensor:
    """LS(MHSA(z)) of block i."""
    name = f"vit.blocks.{i}.attn"
    return layer_scale(p, f"{name}.layer_scale", attention(p, f"{name}.layer", z, vit.heads, qkv))


def mlp(p: Params, i: int, z: Tensor) -> Tensor:
    """LS(MLP(z)) of block i."""
    name = f"vit.blocks.{i}.mlp"
    y = linear(p, f"{name}.layer.fc2", gelu(linear(p, f"{name}.layer.fc1", z)))
    return layer_scale(p, f"{name}.layer_scale", y)


def plain(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """The frozen block, to which nothing is attached."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    return x + mlp(p, i, ln2(p, i, x, vit))


def quick_gelu(u: Tensor) -> Tensor:
    return u / (1 + torch.exp(-1.702 * u))


def classify(p: Params, x: Tensor, vit: Vit) -> Tensor:
    """Final norm, [cls] or the mean of the patches (the last tokens), its norm, linear head."""
    x = optional_norm(p, "vit.norm", x, vit.eps)
    patches = vit.grid[0] * vit.grid[1]
    feature = x[:, 0] if vit.pool == "token" else x[:, -patches:].sum(1) / patches
    return linear(p, "head", optional_norm(p, "vit.fc_norm", feature, vit.eps))
