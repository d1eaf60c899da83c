"""SSF."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method

BIBTEX = """
@inproceedings{lian2022ssf,
  title     = {Scaling \\& Shifting Your Features: A New Baseline for Efficient Model Tuning},
  author    = {Lian, Dongze and Zhou, Daquan and Feng, Jiashi and Wang, Xinchao},
  booktitle = {Advances in Neural Information Processing Systems},
  year      = {2022}
}
"""


class ScaleShift(nn.Module):
    """gamma y + beta of each output channel, within the layer: W, b -> gamma W, gamma b + beta."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(channels))
        self.shift = nn.Parameter(torch.empty(channels))
        nn.init.normal_(self.scale, mean=1, std=0.02)
        nn.init.normal_(self.shift, std=0.02)

    def forward(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.scale.reshape(-1, *[1] * (weight.dim() - 1))  # (out, 1, ...)
        return scale * weight, self.scale * bias + self.shift


@dataclass(frozen=True)
class SSF(Method):
    """SSF: the output of every layer scaled and shifted per channel, y <- gamma y + beta.

    Lian et al., Scaling & Shifting Your Features, NeurIPS 2022 (arXiv:2210.08823), section 3.2.
    Every linear layer, convolution and LayerNorm that has a bias: on ViT the patch embedding,
    both norms, qkv, proj, fc1 and fc2 of each block, and the final norm. Swin's bias-free patch
    merging keeps its weight, as in the released code, and so does any layer without a bias: there
    the shift would be a bias that the backbone does not have. gamma ~ N(1, 0.02) and
    beta ~ N(0, 0.02), the second number the standard deviation, follow that code; the start is
    close to the backbone's function and not exactly it. Computed on weight and bias in place of
    the output, which is the same. ConvNeXt's norms over channels-first maps are left out.
    """

    merges = True

    def require(self, shape: Shape) -> None:
        pass  # any model has layers

    def attach(self, backbone: Backbone) -> None:
        for layer in backbone.layers.values():
            if layer.bias is not None:
                layer.weights.append(ScaleShift(len(layer.weight)))

    def num_trainable(self, shape: Shape) -> int:
        # of a plain ViT with mlp ratio 4 and biases everywhere: 2 * (11 * depth + 2) * dim
        return sum(2 * layer.outputs for layer in shape.layers if layer.bias)

    def identity_at_init(self) -> bool:
        return False
