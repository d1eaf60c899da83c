"""GPS, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from reference.vit import (
    Params,
    Vit,
    classify,
    depth,
    embed,
    layer_norm,
    plain,
)
from timm.models.convnext import ConvNeXt
from torch import Tensor

from petlbench.backbone import stored_tensors
from petlbench.backbones import adopt
from petlbench.method import load
from petlbench.methods.gps import contrast
from proofs.common import TINY, adapt, added, assert_zero, initial

SETTINGS = [{"entries": 2}]
MORE = [{}, {"entries": 7}]
COUNTS = [({}, 167_424), ({"entries": 3}, 4 * 83_712), ({"entries": 5000}, 85_524_480 + 83_712)]
SIZE = "entries"


def adapted_layers(p: Params) -> list[str]:
    return [name.removesuffix(".weights.0.values") for name in p if name.endswith(".0.values")]


def trained(p: Params) -> set[str]:
    """Every linear layer and the patch embedding: entries and bias; nothing of a LayerNorm."""
    layers = {"vit.patch_embed.proj"} | {
        f"vit.blocks.{i}.{layer}"
        for i in range(depth(p))
        for layer in ("attn.layer.qkv", "attn.layer.proj", "mlp.layer.fc1", "mlp.layer.fc2")
    }
    assert layers == set(adapted_layers(p))
    names = {f"{layer}.weights.0.values" for layer in layers}
    return names | {f"{layer}.bias" for layer in layers if f"{layer}.bias" in p} | HEAD


HEAD = {"head.weight", "head.bias"}


def logits(p: Params, images: Tensor, vit: Vit, **_: Any) -> Tensor:
    """The plain encoder over W + sum over k of values[:, k] at column index[:, k]."""
    changed = dict(p)
    for name in adapted_layers(p):
        weight, values = p[f"{name}.weight"], p[f"{name}.weights.0.values"]
        columns = torch.arange(weight[0].numel())
        for k, index in enumerate(p[f"{name}.weights.0.index"].T):
            here = (columns == index[:, None]).to(weight.dtype)
            weight = weight + (here * values[:, k : k + 1]).reshape(weight.shape)
        changed[f"{name}.weight"] = weight
    x = embed(changed, images, vit)
    for i in range(depth(p)):
        x = plain(changed, i, x, vit)
    return classify(changed, x, vit)


def slow_contrast(features: Tensor, labels: list[int]) -> Tensor:
    """Written out: two views of each image, anchor by anchor, positive by positive."""
    views = [feature / feature.pow(2).sum().sqrt() for feature in features for _ in range(2)]
    classes = [label for label in labels for _ in range(2)]
    losses = []
    for i, anchor in enumerate(views):
        others = [j for j in range(len(views)) if j != i]
        total = torch.stack([(anchor @ views[j] / 0.07).exp() for j in others]).sum()
        positives = [j for j in others if classes[j] == classes[i]]
        logs = [anchor @ views[j] / 0.07 - total.log() for j in positives]
        losses.append(-sum(logs, torch.zeros(())) / len(positives))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("labels", [[0, 0, 1, 2, 1], [0, 1, 2, 3, 4], [3, 3, 3, 3, 3]])
def test_gps_loss(labels: list[int]) -> None:
    """Also where no image has another of its class: its other view is its positive."""
    features = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    found = contrast(features, torch.tensor(labels))
    torch.testing.assert_close(found, slow_contrast(features, labels))
    assert math.isfinite(found.item())


def test_gps_takes_the_entries_of_largest_gradient() -> None:
    """Of the loss summed over batches, on the frozen backbone without head and drop-path."""
    options = {"drop_path_rate": 0.5, "init_values": 0.5}
    pixels = torch.randn(10, 3, 12, 8, generator=torch.Generator().manual_seed(5)).double()
    labels = torch.tensor([0, 1, 2, 0, 1, 0, 0, 1, 2, 2])
    backbone = adapt("gps", {"entries": 2}, **options).train()
    parts = zip(pixels.split(6), labels.split(6), strict=True)
    load("gps")(entries=2).calibrate(backbone, lambda _: parts)
    assert backbone.training and all(p.grad is None for p in backbone.parameters())

    vit = Vit(patch=(4, 4), grid=(3, 2), heads=2)
    p = {name: value.detach().clone() for name, value in backbone.named_parameters()}
    layers = [
        name.removesuffix(".weights.0.values") for name in added(backbone) if "values" in name
    ]
    weights = [p[f"{layer}.weight"].requires_grad_(True) for layer in layers]
    loss = torch.zeros(())
    for images, classes in zip(pixels.split(6), labels.split(6), strict=True):
        x = embed(p, images, vit)
        for i in range(TINY["depth"]):
            x = plain(p, i, x, vit)
        feature = layer_norm(p, "vit.norm", x, vit.eps)[:, 0]
        loss = loss + slow_contrast(feature, classes.tolist())
    for layer, gradient in zip(layers, torch.autograd.grad(loss, weights), strict=True):
        expected = gradient.abs().flatten(1).argsort(1, descending=True)[:, :2]
        index = cast(Any, backbone.get_submodule(layer)).weights[0].index
        assert torch.equal(index.sort(1).values, expected.sort(1).values), layer


def test_gps_leaves_the_backbone_frozen() -> None:
    """Of the backbone only biases train, and none of a LayerNorm."""
    names = [name for name in added(adapt("gps")) if not name.endswith(".values")]
    assert names and all(name.endswith(".bias") and "norm" not in name for name in names)


def test_gps_starts_from_the_backbone() -> None:
    assert_zero(initial("gps")["values"])


def test_gps_stores_the_entries() -> None:
    stored = stored_tensors(adapt("gps"))
    index = stored["vit.blocks.0.mlp.layer.fc1.weights.0.index"]
    assert index.shape == (24, 1) and index.dtype == torch.int32


def test_gps_needs_no_blocks() -> None:
    """Every layer of any model; a depth-wise 7x7 convolution has 49 weights per output."""
    backbone = adopt(ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 8, 16, 32)))
    backbone.prepare(3)
    built = load("gps")(entries=60)
    built.require(backbone.shape)
    built.attach(backbone)
    entries = {n: p.shape[1] for n, p in added(backbone).items() if n.endswith("values")}
    assert {48, 49, 60} <= set(entries.values())  # stem, depth-wise, wide enough
    assert built.num_trainable(backbone.shape) == sum(p.numel() for p in added(backbone).values())
