"""SSF, proven."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from reference.vit import Params, Vit, classify, depth, embed, gelu, layer_scale, linear, ln1, ln2
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from petlbench.backbone import Backbone
from petlbench.backbones import adopt
from petlbench.method import load
from proofs.common import TINY, adapt, added, base, perturb

SETTINGS: list[dict[str, Any]] = [{}]
COUNTS = [({}, 205_824)]


def trained(p: Params) -> set[str]:
    """A scale and a shift for every layer with a bias, and the head itself."""
    layers = [n.removesuffix(".bias") for n in p if n.startswith("vit.") and n.endswith(".bias")]
    names = {f"{layer}.weights.0.{t}" for layer in layers for t in ("scale", "shift")}
    return names | {"head.weight", "head.bias"}


def affine(p: Params, name: str, y: Tensor) -> Tensor:
    """gamma y + beta on the output y of that layer, if it has a bias."""
    if f"{name}.bias" not in p:
        return y
    return p[f"{name}.weights.0.scale"] * y + p[f"{name}.weights.0.shift"]


def block(p: Params, i: int, x: Tensor, vit: Vit) -> Tensor:
    """Every output scaled and shifted, before LayerScale."""
    attn, mlp = (f"vit.blocks.{i}.{branch}" for branch in ("attn", "mlp"))
    z = affine(p, f"{attn}.norm", ln1(p, i, x, vit))
    qkv = affine(p, f"{attn}.layer.qkv", linear(p, f"{attn}.layer.qkv", z))
    # (B, N, 3D) -> q, k, v of (B, heads, N, width)
    q, k, v = qkv.unflatten(2, (3, vit.heads, -1)).permute(2, 0, 3, 1, 4)
    shares = torch.softmax(q @ k.transpose(2, 3) / math.sqrt(q.shape[-1]), dim=-1)
    y = (shares @ v).transpose(1, 2).flatten(2)
    y = affine(p, f"{attn}.layer.proj", linear(p, f"{attn}.layer.proj", y))
    x = x + layer_scale(p, f"{attn}.layer_scale", y)
    z = affine(p, f"{mlp}.norm", ln2(p, i, x, vit))
    y = affine(p, f"{mlp}.layer.fc1", linear(p, f"{mlp}.layer.fc1", z))
    y = affine(p, f"{mlp}.layer.fc2", linear(p, f"{mlp}.layer.fc2", gelu(y)))
    return x + layer_scale(p, f"{mlp}.layer_scale", y)


def logits(p: Params, images: Tensor, vit: Vit) -> Tensor:
    """Outside the blocks: of the patch embedding before positions, of the norms around them."""
    folded = dict(p)
    for name in ("vit.patch_embed.proj", "vit.norm_pre", "vit.norm", "vit.fc_norm"):
        if f"{name}.bias" in p:
            scale = p[f"{name}.weights.0.scale"]
            rows = torch.einsum("o,o...->o...", scale, p[f"{name}.weight"])
            folded[f"{name}.weight"] = rows
            folded[f"{name}.bias"] = affine(p, name, p[f"{name}.bias"])
    x = embed(folded, images, vit)
    for i in range(depth(p)):
        x = block(p, i, x, vit)
    return classify(folded, x, vit)


def test_ssf_initialisation() -> None:
    """Around one and zero, with standard deviation (not variance) 0.02, drawn one by one."""
    torch.manual_seed(0)
    backbone = base()
    load("ssf")().attach(backbone)
    for kind, mean in (("scale", 1.0), ("shift", 0.0)):
        tensors = [p.detach() for n, p in added(backbone).items() if n.endswith(kind)]
        assert len(tensors) == 1 + 6 * 12 + 1
        values = torch.cat(tensors)
        assert values.mean().item() == pytest.approx(mean, abs=5 * 0.02 / len(values) ** 0.5)
        assert values.std().item() == pytest.approx(0.02, rel=0.02)
        assert values.unique().numel() > 0.5 * len(values)


def test_ssf_of_a_convolution() -> None:
    backbone = adapt("ssf")
    perturb(backbone)
    layer: Any = backbone.layers["patch_embed.proj"]
    x = torch.randn(2, 3, 12, 8, dtype=torch.float64)
    plain = torch.nn.functional.conv2d(x, layer.weight, layer.bias, stride=4)
    own = layer.weights[0]
    expected = torch.einsum("o,borc->borc", own.scale, plain) + own.shift[:, None, None]
    torch.testing.assert_close(layer(x), expected)


SWIN: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": (1, 1),
    "num_heads": (2, 2),
    "window_size": 4,
}


@pytest.mark.parametrize(
    ("model", "options", "bare"),
    [
        (SwinTransformer, SWIN, ["reduction"]),
        (VisionTransformer, TINY | {"qkv_bias": False}, ["qkv", "qkv"]),
        (ConvNeXt, {"depths": (1, 1, 1, 1), "dims": (8, 8, 16, 16)}, []),
    ],
)
def test_ssf_leaves_layers_without_bias_alone(
    model: Any, options: dict[str, Any], bare: list[str]
) -> None:
    """A shift there could not be merged; the released code has none on Swin's patch merging."""
    backbone: Backbone = adopt(model(**options))
    backbone.prepare(3)
    method = load("ssf")()
    method.attach(backbone)
    without = [name for name, layer in backbone.layers.items() if not len(layer.weights)]
    assert [name.rpartition(".")[2] for name in without] == bare
    own = sum(p.numel() for p in added(backbone).values())
    assert own == method.num_trainable(backbone.shape)
    method.merge(backbone)  # refused where something cannot be folded in
