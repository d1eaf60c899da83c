"""BitFit."""

from __future__ import annotations

from dataclasses import dataclass

from petlbench.backbone import Backbone, Shape, biases
from petlbench.method import Method

BIBTEX = """
@inproceedings{benzaken2022bitfit,
  title     = {{BitFit}: Simple Parameter-efficient Fine-tuning for Transformer-based Masked
               Language-models},
  author    = {Ben Zaken, Elad and Goldberg, Yoav and Ravfogel, Shauli},
  booktitle = {Annual Meeting of the Association for Computational Linguistics},
  year      = {2022}
}
"""


@dataclass(frozen=True)
class BitFit(Method):
    """BitFit: every existing bias vector trains; nothing is added.

    Ben Zaken et al., BitFit, ACL 2022 (arXiv:2106.10199), for language models. On vision
    transformers the biases are those of qkv, proj, fc1, fc2, of every LayerNorm and of the patch
    embedding, as in the "bias" baseline of VPT (arXiv:2203.12119).
    """

    merges = True  # in place

    def require(self, shape: Shape) -> None:
        pass  # any model has biases

    def attach(self, backbone: Backbone) -> None:
        for bias in biases(backbone):
            bias.requires_grad_(True)

    def num_trainable(self, shape: Shape) -> int:
        # of a plain ViT with mlp ratio 4 and biases everywhere: (11 * depth + 2) * dim
        return shape.num_biases
