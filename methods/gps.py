"""GPS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, Layer, LayerShape, Shape
from petlbench.method import Batches, Method, setting

BIBTEX = """
@inproceedings{zhang2024gps,
  title     = {Gradient-based Parameter Selection for Efficient Fine-Tuning},
  author    = {Zhang, Zhi and Zhang, Qizhe and Gao, Zijun and Zhang, Renrui and
               Shutova, Ekaterina and Zhou, Shiji and Zhang, Shanghang},
  booktitle = {CVPR},
  year      = {2024}
}
"""

TEMPERATURE = 0.07


class Entries(nn.Module):
    """W' = W with k entries of each output's weights changed: (out, ...) -> (out, ...)."""

    index: Tensor

    def __init__(self, outputs: int, count: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(outputs, count))
        index = torch.arange(count, dtype=torch.int32)  # four bytes, since it is stored
        self.register_buffer("index", index.repeat(outputs, 1))  # see `calibrate`

    def forward(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        changed = weight.flatten(1).scatter_add(1, self.index.long(), self.values.to(weight.dtype))
        return changed.view_as(weight), bias


def contrast(features: Tensor, labels: Tensor) -> Tensor:
    """Supervised contrastive loss of two equal views of each image: (B, D), (B,) -> ().

    The mean over anchors i of -1/|P(i)| sum over p in P(i) of log softmax_(a != i)(z_i z_a / T)_p,
    P(i) the other views of i's class.
    """
    z, labels = F.normalize(features.float(), dim=1).repeat(2, 1), labels.repeat(2)
    same = labels[:, None] == labels
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    shares = (z @ z.T / TEMPERATURE).masked_fill(itself, -torch.inf).log_softmax(1)
    positive = same & ~itself
    return -(shares.masked_fill(~positive, 0).sum(1) / positive.sum(1)).mean()


@dataclass(frozen=True)
class GPS(Method):
    """GPS: of every output's weights the entry with the largest gradient trains, and every bias.

    W' = W + a matrix with k trained entries in each row, for every linear layer and convolution

    Zhang et al., Gradient-based Parameter Selection for Efficient Fine-Tuning, CVPR 2024
    (arXiv:2312.10136), section 3. The entries are those with the largest |gradient| of a
    supervised contrastive loss (temperature 0.07) on the frozen backbone's feature, summed over
    batches of training images, so without a head. k = 1, the patch embedding among the layers,
    all biases but those of LayerNorms, and LayerNorms, positions and [cls] frozen, follow the
    authors' code.

    Deviations: both views of an image are the image itself, since petlbench augments nothing (the
    loss needs two views, or images without another of their class would have no positive); the
    backbone is in evaluation mode meanwhile; LayerScale and Swin's position bias, which the code
    trains by their names, stay frozen. What trains is the change of an entry, so that weight
    decay pulls towards the backbone and not towards zero.
    """

    entries: int = setting(1, at_least=1)

    search = {"entries": (1, 2, 4, 8)}

    merges = True

    def require(self, shape: Shape) -> None:
        """Every model has layers."""

    def attach(self, backbone: Backbone) -> None:
        kinds = {layer.name: layer for layer in backbone.shape.layers if layer.kind != "norm"}
        for name, shape in kinds.items():
            layer = backbone.layers[name]
            layer.weights.append(Entries(shape.outputs, self.count(shape)))
            if layer.bias is not None:
                layer.bias.requires_grad_(True)

    def count(self, layer: LayerShape) -> int:
        """Entries per output: a depth-wise convolution may have fewer than asked for."""
        return min(self.entries, layer.inputs)

    def calibrate(self, backbone: Backbone, batches: Batches) -> None:
        """Find the entries on the training images."""
        mode = backbone.training
        layers: list[Any] = [layer for layer in backbone.layers.values() if is_chosen(layer)]
        weights = [layer.weight.requires_grad_(True) for layer in layers]
        sums = [torch.zeros_like(weight) for weight in weights]
        backbone.eval()
        for images, labels in batches(64):
            loss = contrast(backbone.encode(images), labels.to(images.device))
            for total, gradient in zip(sums, torch.autograd.grad(loss, weights), strict=True):
                total += gradient
        for layer, total in zip(layers, sums, strict=True):
            layer.weight.requires_grad_(False)
            index = layer.weights[-1].index
            index.copy_(total.abs().flatten(1).topk(index.shape[1], dim=1).indices)
        backbone.train(mode)

    def num_trainable(self, shape: Shape) -> int:
        layers = [layer for layer in shape.layers if layer.kind != "norm"]
        return sum(layer.outputs * (self.count(layer) + layer.bias) for layer in layers)


def is_chosen(layer: Layer) -> bool:
    return any(isinstance(module, Entries) for module in layer.weights)
