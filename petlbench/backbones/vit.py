"""Plain vision transformers: timm's `VisionTransformer` (vit_*, DeiT, DINOv2, CLIP towers)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from petlbench.backbone import Backbone, Block, BlockShape, Branch


class ViT(Backbone):
    """Embedding with [cls], registers and positions; blocks over all tokens; norm and pooling."""

    @staticmethod
    def refuses(model: nn.Module) -> str:
        if type(model) is not VisionTransformer:
            return "not a plain VisionTransformer"
        odd = {type(block).__name__ for block in model.blocks if type(block) is not TimmBlock}
        if odd:
            return f"its blocks are {', '.join(sorted(odd))}, not plain pre-norm blocks"
        if not hasattr(cast(Any, model.blocks[0]).attn, "qkv"):
            return "its attention has no joint qkv projection"
        return ""

    def wrap(self) -> Iterator[Block]:
        vit = self.vit
        grid, prefix = tuple(vit.patch_embed.grid_size), vit.num_prefix_tokens
        tokens = prefix + grid[0] * grid[1]
        for number, block in enumerate(vit.blocks):
            wrapped = transformer_block(block, grid, prefix, tokens, tokens)
            vit.blocks[number] = wrapped
            yield wrapped

    def embed(self, images: Tensor) -> Tensor:
        vit = self.vit
        return cast(Tensor, vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images)))))

    def pool(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.vit.forward_head(self.vit.norm(x), pre_logits=True))

    def tail(self) -> list[nn.Module]:
        vit = self.vit
        pooling = [vit.attn_pool] if vit.attn_pool else []
        return [vit.norm, vit.fc_norm, vit.head_drop, *pooling]

    def geometry(self) -> tuple[tuple[int, int], tuple[int, int]]:
        embed = self.vit.patch_embed
        return tuple(embed.img_size), tuple(embed.patch_size)


def transformer_block(
    block: Any,
    grid: tuple[int, int] | None,
    prefix: int,
    tokens: int,
    attended: int,
    layer: nn.Module | None = None,
    entry: nn.Module | None = None,
) -> Block:
    """A block with timm's names (norm1, attn, ls1, drop_path1, ...), its layers adopted.

    `layer` stands in for `attn` where a family computes more around it.
    """
    nothing = nn.Identity()
    num_parameters = sum(p.numel() for p in block.parameters())
    num_parameters += sum(p.numel() for p in entry.parameters()) if entry else 0
    scales = getattr(block, "ls1", nothing), getattr(block, "ls2", nothing)
    attn = Branch(block.norm1, layer or block.attn, scales[0], block.drop_path1, ("qkv",))
    inner = [name for name, child in block.mlp.named_children() if name.startswith("fc1")]
    mlp = Branch(block.norm2, block.mlp, scales[1], block.drop_path2, tuple(inner))
    linears = {
        name: (linear.in_features, linear.out_features)
        for branch in (attn, mlp)
        for name, linear in branch.linears.items()
    }
    shape = BlockShape(
        dim=block.norm1.normalized_shape[0],
        num_heads=block.attn.num_heads,
        grid=grid,
        num_prefix_tokens=prefix,
        num_tokens=tokens,
        attended=attended,
        linears=linears,
        num_parameters=num_parameters,
    )
    return Block(attn, mlp, shape, entry)
