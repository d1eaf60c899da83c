"""Full fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method

BIBTEX = ""


@dataclass(frozen=True)
class Full(Method):
    """Full fine-tuning: every parameter of the backbone trains, embeddings included."""

    merges = True  # in place

    def require(self, shape: Shape) -> None:
        pass  # any model will do

    def attach(self, backbone: Backbone) -> None:
        backbone.requires_grad_(True)

    def num_trainable(self, shape: Shape) -> int:
        return shape.num_parameters
