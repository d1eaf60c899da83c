"""A pre-trained vision transformer with named sites where methods attach.

The pre-norm block is written down once, here. It knows sites, not methods:

    u = norm(x)              u = before(u)
    y = drop_path(layer_scale(layer(u)))
                             y = after(y)
    x = x + y + parallel(norm(x)) + parallel_residual(x)     for MHSA, then for the MLP
    x = out(x)               after both
    x = tokens(x)            before both: may change the number of tokens
    W x + b + deltas(x)      inside qkv, proj, fc1, fc2

Every site is an `nn.ModuleList`; attaching is appending.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.layers.patch_dropout import PatchDropout
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from petlbench.errors import UsageError


@dataclass(frozen=True)
class Shape:
    """What a closed-form parameter count may depend on. Sizes in elements, patches in pixels."""

    dim: int
    depth: int
    num_heads: int
    mlp_hidden: int  # output width of fc1
    patch_size: tuple[int, int]
    grid: tuple[int, int]  # patches per column and per row
    num_prefix_tokens: int  # [cls] and registers
    num_parameters: int  # of the whole backbone, without head
    num_biases: int  # elements of all its bias vectors

    @property
    def num_tokens(self) -> int:
        """Prefix and patches."""
        return self.num_prefix_tokens + self.grid[0] * self.grid[1]


class Linear(nn.Linear):
    """W x + b + sum of deltas(x): (..., in) -> (..., out). Same parameter names as `nn.Linear`."""

    deltas: nn.ModuleList

    @classmethod
    def adopt(cls, linear: nn.Linear) -> Linear:
        adopted = cls.__new__(cls)
        adopted.__dict__ = linear.__dict__  # the very same parameters, not copies
        adopted.deltas = nn.ModuleList()
        return adopted

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight, self.bias)
        for delta in self.deltas:
            y = y + delta(x)
        return y


class Branch(nn.Module):
    """One residual branch, x + DropPath(LayerScale(layer(norm(x)))), with its sites."""

    def __init__(
        self, norm: nn.Module, layer: nn.Module, layer_scale: nn.Module, drop_path: nn.Module
    ) -> None:
        super().__init__()
        self.norm, self.layer = norm, layer
        self.layer_scale, self.drop_path = layer_scale, drop_path
        self.before = nn.ModuleList()
        self.after = nn.ModuleList()
        self.parallel = nn.ModuleList()
        self.parallel_residual = nn.ModuleList()

    def linear(self, name: str) -> Linear:
        """The linear layer of that name: qkv, proj of MHSA; fc1, fc2 of the MLP."""
        return cast(Linear, getattr(self.layer, name))

    @property
    def drop_path_rate(self) -> float:
        return float(getattr(self.drop_path, "drop_prob", 0.0) or 0.0)

    def forward(self, x: Tensor) -> Tensor:
        u = normed = autocast(self.norm(x))  # (B, N, D), as everything below
        for module in self.before:
            u = module(u)
        y = self.drop_path(self.layer_scale(self.layer(u)))
        for module in self.after:
            y = module(y)
        for module in self.parallel:
            y = y + module(normed)
        for module in self.parallel_residual:
            y = y + module(x)
        return cast(Tensor, x + y)


class Block(nn.Module):
    """A pre-norm transformer block: an attention branch and an MLP branch."""

    def __init__(self, block: TimmBlock) -> None:
        super().__init__()
        for parent in (block.attn, block.mlp):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear:  # qkv, proj, fc1, fc2
                    setattr(parent, name, Linear.adopt(child))
        self.tokens = nn.ModuleList()
        self.attn = Branch(block.norm1, block.attn, block.ls1, block.drop_path1)
        self.mlp = Branch(block.norm2, block.mlp, block.ls2, block.drop_path2)
        self.out = nn.ModuleList()

    @property
    def branches(self) -> tuple[Branch, Branch]:
        return self.attn, self.mlp

    def forward(self, x: Tensor) -> Tensor:
        for module in self.tokens:
            x = module(x)
        x = self.mlp(self.attn(x))
        for module in self.out:
            x = module(x)
        return x


class Backbone(nn.Module):
    """A plain timm `VisionTransformer` whose blocks carry sites, and one linear head.

    The feature is the model's own: final norm, then [cls] or the pooling it was trained with.
    Weights must be loaded before: wrapping renames them.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        require_plain(vit)
        self.num_heads: int = cast(Any, vit.blocks[0]).attn.num_heads
        vit.reset_classifier(0)
        vit.blocks = nn.Sequential(*(Block(cast(TimmBlock, block)) for block in vit.blocks))
        self.vit = vit
        self.head: Any = nn.Identity()
        self.left_out: list[str] = []  # keys of the checkpoint that are no part of the encoder
        self.recompute = False  # in training, blocks' activations again in the backward pass
        self.shape = self._measure()

    @property
    def blocks(self) -> Iterator[Block]:
        return iter(cast("list[Block]", list(self.vit.blocks)))

    def prepare(self, num_classes: int) -> None:
        """Freeze everything and put a fresh linear head (PyTorch's default initialisation)."""
        self.requires_grad_(False)
        self.head = nn.Linear(self.vit.num_features, num_classes)

    def drop_path_off(self) -> None:
        """Make the frozen encoder deterministic during training."""
        for block in self.blocks:
            for branch in block.branches:
                branch.drop_path = nn.Identity()

    def store_frozen(self, dtype: torch.dtype) -> None:
        """Keep frozen weights as autocast to `dtype` would cast them anew in every step.

        Only where nothing but a matrix product or convolution can read them: not what a method
        has attached, and not a layer with deltas, whose weight a method may compute with.
        """
        sites = [module for module in self.modules() if isinstance(module, nn.ModuleList)]
        attached = {module for site in sites for module in site.modules()}
        for module in set(self.modules()) - attached:
            plain = isinstance(module, (nn.Linear, nn.Conv2d)) and not getattr(module, "deltas", ())
            for parameter in module.parameters(recurse=False) if plain else ():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)

    def compile_blocks(self) -> None:
        """Compile each block by itself: blocks that differ only in weights share the code."""
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, 4 * self.shape.depth)
        for block in self.blocks:
            block.compile()

    def use_fused_attention(self, fused: bool) -> None:
        """Fused kernel or explicit softmax(q k^T) v: the same formula, another rounding."""
        for block in self.blocks:
            block.attn.layer.fused_attn = fused  # type: ignore[assignment]

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, classes).

        With `start`, `x` is what `encode(images, stop=start)` gave.
        """
        features = self.encode(x, start)
        # the head in full precision: bf16 logits tie, and ties go to the lower class
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.head(features.to(x.dtype)))

    def encode(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run stages `start` to `stop` of: embedding, each block, norm and pooling.

        Images (B, 3, H, W) -> tokens (B, N, D) between the stages -> features (B, D).
        """
        blocks = self.vit.blocks
        for stage in [self._embed, *blocks, self._pool][start:stop]:
            if self.recompute and self.training and isinstance(stage, Block):
                x = checkpoint(stage, x, use_reentrant=False)  # replays the same random numbers
            else:
                x = stage(x)
        return x

    def _embed(self, images: Tensor) -> Tensor:
        vit = self.vit
        return cast(Tensor, vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images)))))

    def _pool(self, x: Tensor) -> Tensor:
        return self.vit.forward_head(self.vit.norm(x), pre_logits=True)

    def frozen_stages(self) -> int:
        """How many stages at the front compute the same of an image in every epoch.

        They train nothing, draw no random numbers in training, and no method has attached to them.
        """
        vit = self.vit
        outer = [vit.patch_embed, vit.pos_drop, vit.patch_drop, vit.norm_pre]
        tail = [vit.norm, vit.fc_norm, vit.head_drop, *([vit.attn_pool] if vit.attn_pool else [])]
        embedding = [*vit.parameters(recurse=False), *(p for m in outer for p in m.parameters())]
        stages = [(embedding, outer), *((list(b.parameters()), [b]) for b in self.blocks)]
        stages.append(([p for m in tail for p in m.parameters()], tail))
        count = 0
        for parameters, modules in stages:
            inner = [module for outermost in modules for module in outermost.modules()]
            if any(p.requires_grad for p in parameters) or any(map(changes, inner)):
                break
            count += 1
        return count

    def _measure(self) -> Shape:
        vit, mlp = self.vit, next(self.blocks).mlp.layer
        return Shape(
            dim=vit.embed_dim,
            depth=len(vit.blocks),
            num_heads=self.num_heads,
            mlp_hidden=cast(nn.Linear, mlp.fc1).out_features if hasattr(mlp, "fc1") else 0,
            patch_size=tuple(vit.patch_embed.patch_size),
            grid=tuple(vit.patch_embed.grid_size),
            num_prefix_tokens=vit.num_prefix_tokens,
            num_parameters=sum(p.numel() for p in vit.parameters()),
            num_biases=sum(bias.numel() for bias in biases(vit)),
        )


def require_plain(vit: nn.Module) -> None:
    """Refuse, with the reason, what the block above does not describe."""
    name = type(vit).__name__
    if type(vit) is not VisionTransformer:
        raise UsageError(
            f"{name} is not a plain vision transformer; petlbench takes timm's vit_*, deit_* "
            "(not distilled), DINOv2 and CLIP image towers of class VisionTransformer."
        )
    odd = {type(block).__name__ for block in vit.blocks if type(block) is not TimmBlock}
    if odd:
        raise UsageError(f"its blocks are {', '.join(sorted(odd))}, not plain pre-norm blocks.")
    if not hasattr(cast(TimmBlock, vit.blocks[0]).attn, "qkv"):
        raise UsageError("its attention has no joint qkv projection.")


def autocast(x: Tensor) -> Tensor:
    """Cast once what autocast would cast again for each of its readers."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def changes(module: nn.Module) -> bool:
    """Whether `module` may give another output for the same input, or is a site in use."""
    if isinstance(module, nn.ModuleList):  # sites are the only ones
        return len(module) > 0
    if isinstance(module, DropPath):
        return bool(module.drop_prob)
    if isinstance(module, PatchDropout):
        return bool(module.prob)
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0


def biases(model: nn.Module) -> Iterator[nn.Parameter]:
    """Every bias vector of every module."""
    for module in model.modules():
        bias = getattr(module, "bias", None)
        if isinstance(bias, nn.Parameter):
            yield bias


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of everything that trains (the head included)."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def load_trained(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put stored trained weights back; names and shapes must match exactly."""
    parameters = trained_parameters(model)
    odd = sorted(parameters.keys() ^ tensors.keys())
    odd = odd or [n for n, p in parameters.items() if p.shape != tensors[n].shape]
    if odd:
        raise UsageError(f"the stored weights are of another model: {', '.join(odd[:3])} differ.")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])
