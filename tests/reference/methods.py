"""Each method as one written-out block, and the set of parameters it trains.

x: (B, N, D). A block takes the method's settings by keyword; the defaults are the documented
ones, written here a second time. Settings that do not change the evaluated formula (dropout,
initialisation, sizes that the tensors tell) are accepted and ignored.
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from .vit import Params, Vit, classify, depth, embed, linear, ln1, ln2, mhsa, mlp, num_prefix


class BlockFormula(Protocol):
    def __call__(self, p: Params, i: int, x: Tensor, vit: Vit, **settings: Any) -> Tensor: ...


def logits(method: str, p: Params, images: Tensor, vit: Vit, **settings: Any) -> Tensor:
    """Images (B, 3, H, W) -> (B, classes)."""
    x = embed(p, images, vit)
    for i in range(depth(p)):
        x = BLOCKS[method](p, i, x, vit, **settings)
    return classify(p, x, vit)


def quick_gelu(u: Tensor) -> Tensor:
    return u / (1 + torch.exp(-1.702 * u))


def plain(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """The frozen block: also full, linear and BitFit, which add nothing."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    return x + mlp(p, i, ln2(p, i, x, vit))


def adapter(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """x + A(LS(MLP(LN2 x))), A(u) = u + Up(q(Down u))."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    u = mlp(p, i, ln2(p, i, x, vit))
    name = f"vit.blocks.{i}.mlp.after.0"
    return x + u + linear(p, f"{name}.up", quick_gelu(linear(p, f"{name}.down", u)))


def adaptformer(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 0.1, **_: Any) -> Tensor:
    """x + LS(MLP(LN2 x)) + s Up(ReLU(Down x)): the bottleneck reads x, not LN2 x."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    name = f"vit.blocks.{i}.mlp.parallel_residual.0"
    down = linear(p, f"{name}.down", x)
    down = torch.where(down > 0, down, 0)
    return x + mlp(p, i, ln2(p, i, x, vit)) + scale * linear(p, f"{name}.up", down)


def lora(
    p: Params, i: int, x: Tensor, vit: Vit, *, rank: int = 8, alpha: float = 8.0, **_: Any
) -> Tensor:
    """W' = W + (alpha / r) B A on the q and v thirds, as a dense weight."""
    name = f"vit.blocks.{i}.attn.layer.qkv"
    query, value = (p[f"{name}.deltas.0.b_{t}"] @ p[f"{name}.deltas.0.a_{t}"] for t in "qv")
    update = torch.cat([query, torch.zeros_like(query), value])
    weight = p[f"{name}.weight"] + alpha / rank * update
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit, qkv=weight)
    return x + mlp(p, i, ln2(p, i, x, vit))


def vpt(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """[prefix; P_i; patches]: before block i its own prompts, whatever stood in their place."""
    patches = x[:, -vit.grid[0] * vit.grid[1] :]
    prompts = p[f"vit.blocks.{i}.tokens.0.prompts"].expand(len(x), -1, -1)
    return plain(p, i, torch.cat([x[:, : num_prefix(p)], prompts, patches], dim=1), vit)


def vpt_shallow(p: Params, i: int, x: Tensor, vit: Vit, **_: Any) -> Tensor:
    """Prompts before the first block; their outputs go on through the others."""
    return vpt(p, i, x, vit) if i == 0 else plain(p, i, x, vit)


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


def conv_bypass(p: Params, name: str, z: Tensor, vit: Vit) -> Tensor:
    """Up(q(Conv3x3(q(Down z))))."""
    u = quick_gelu(linear(p, f"{name}.down", z))
    u = quick_gelu(conv3x3(p, f"{name}.conv", u, num_prefix(p), vit.grid))
    return linear(p, f"{name}.up", u)


def convpass(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, **_: Any) -> Tensor:
    """A bypass of MHSA and one of the MLP; both read what their sub-layer reads."""
    z = ln1(p, i, x, vit)
    bypass = conv_bypass(p, f"vit.blocks.{i}.attn.parallel.0", z, vit)
    x = x + mhsa(p, i, z, vit) + scale * bypass
    z = ln2(p, i, x, vit)
    bypass = conv_bypass(p, f"vit.blocks.{i}.mlp.parallel.0", z, vit)
    return x + mlp(p, i, z) + scale * bypass


def convpass_attn(
    p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, **_: Any
) -> Tensor:
    """The bypass of MHSA only."""
    z = ln1(p, i, x, vit)
    bypass = conv_bypass(p, f"vit.blocks.{i}.attn.parallel.0", z, vit)
    x = x + mhsa(p, i, z, vit) + scale * bypass
    return x + mlp(p, i, ln2(p, i, x, vit))


BLOCKS: dict[str, BlockFormula] = {
    "full": plain,
    "linear": plain,
    "bitfit": plain,
    "vpt": vpt,
    "vpt_shallow": vpt_shallow,
    "adapter": adapter,
    "adaptformer": adaptformer,
    "lora": lora,
    "convpass": convpass,
    "convpass_attn": convpass_attn,
}

_BOTTLENECK = ("down.weight", "down.bias", "up.weight", "up.bias")
_BYPASS = (*_BOTTLENECK, "conv.weight", "conv.bias")
ADDED: dict[str, tuple[str, ...]] = {
    "vpt": ("tokens.0.prompts",),
    "adapter": tuple(f"mlp.after.0.{t}" for t in _BOTTLENECK),
    "adaptformer": tuple(f"mlp.parallel_residual.0.{t}" for t in _BOTTLENECK),
    "lora": tuple(f"attn.layer.qkv.deltas.0.{t}" for t in ("a_q", "b_q", "a_v", "b_v")),
    "convpass": tuple(f"{branch}.parallel.0.{t}" for branch in ("attn", "mlp") for t in _BYPASS),
    "convpass_attn": tuple(f"attn.parallel.0.{t}" for t in _BYPASS),
}
"""Method -> what it adds to every block. The other methods add nothing, or to one block only."""


def trained(method: str, p: Params) -> set[str]:
    """The names of all parameters that train, the head's included."""
    if method == "full":
        return set(p)
    head = {"head.weight", "head.bias"}
    if method == "bitfit":
        return head | {name for name in p if name.endswith(".bias")}
    if method == "vpt_shallow":
        return head | {"vit.blocks.0.tokens.0.prompts"}
    added = ADDED.get(method, ())
    return head | {f"vit.blocks.{i}.{name}" for i in range(depth(p)) for name in added}
