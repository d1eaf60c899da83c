"""LayerNorm tuning."""

from __future__ import annotations

from dataclasses import dataclass

from petlbench.backbone import Backbone, Shape, norms
from petlbench.errors import UsageError
from petlbench.method import Method

BIBTEX = """
@inproceedings{basu2024strong,
  title     = {Strong Baselines for Parameter-Efficient Few-Shot Fine-Tuning},
  author    = {Basu, Samyadeep and Hu, Shell and Massiceti, Daniela and Feizi, Soheil},
  booktitle = {AAAI Conference on Artificial Intelligence},
  year      = {2024}
}
"""


@dataclass(frozen=True)
class LayerNormTuning(Method):
    """LayerNorm tuning: weight and bias of every LayerNorm train; nothing is added.

    Basu et al., Strong Baselines for Parameter-Efficient Few-Shot Fine-Tuning, AAAI 2024
    (arXiv:2304.01917), where it is called LN-Tune. Every LayerNorm of the backbone: two in each
    block, the final one, and those that only some models have (before the blocks, after pooling,
    in patch merging).
    """

    merges = True  # in place

    def require(self, shape: Shape) -> None:
        if shape.num_norms == 0:
            raise UsageError(f"{shape.family} has no LayerNorm with a weight or bias.")

    def attach(self, backbone: Backbone) -> None:
        for norm in norms(backbone):
            norm.requires_grad_(True)

    def num_trainable(self, shape: Shape) -> int:
        # of a plain ViT: (2 * depth + 1) * 2 * dim
        return shape.num_norms
