"""Linear probe."""

from __future__ import annotations

from dataclasses import dataclass

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method

BIBTEX = ""


@dataclass(frozen=True)
class Linear(Method):
    """Linear probe: only the head trains, on the frozen feature.

    Drop-path of the encoder is off, so that an image has one feature. Deviation: released
    training scripts leave it on (rate 0.1), which adds noise to the features of the probe.
    """

    merges = True  # nothing is added

    def require(self, shape: Shape) -> None:
        pass  # any model will do

    def attach(self, backbone: Backbone) -> None:
        backbone.drop_path_off()

    def num_trainable(self, shape: Shape) -> int:
        return 0
