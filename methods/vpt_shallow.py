"""VPT-shallow."""

from __future__ import annotations

from dataclasses import dataclass

from petlbench.backbone import Backbone, Shape
from petlbench.method import Method, setting
from petlbench.methods.vpt import BIBTEX as BIBTEX
from petlbench.methods.vpt import attach_prompts, require_images


@dataclass(frozen=True)
class VPTShallow(Method):
    """VPT-shallow: p learned tokens join the sequence before the first block.

    Jia et al., Visual Prompt Tuning, ECCV 2022 (arXiv:2203.12119), section 3.2, equation 4: the
    special case of VPT-deep with prompts before the first block only. No dropout on prompts, as
    in the authors' code. Deviation: they search p per task; here it is one setting (default 10).
    """

    tokens: int = setting(10, at_least=1)
    dropout: float = setting(0.0, at_least=0, below=1)

    search = {"tokens": (1, 5, 10, 50, 100, 200)}

    def require(self, shape: Shape) -> None:
        super().require(shape)
        require_images(shape)

    def attach(self, backbone: Backbone) -> None:
        attach_prompts(backbone, self.tokens, self.dropout, deep=False)

    def num_trainable(self, shape: Shape) -> int:
        return self.tokens * shape.blocks[0].dim

    def identity_at_init(self) -> bool:
        return False
