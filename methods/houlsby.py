"""Adapter (Houlsby)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from petlbench.backbone import Backbone, Shape, norms
from petlbench.method import Method, setting

BIBTEX = """
@inproceedings{houlsby2019adapter,
  title     = {Parameter-Efficient Transfer Learning for {NLP}},
  author    = {Houlsby, Neil and Giurgiu, Andrei and Jastrzebski, Stanislaw and Morrone, Bruna and
               de Laroussilhe, Quentin and Gesmundo, Andrea and Attariyan, Mona and
               Gelly, Sylvain},
  booktitle = {International Conference on Machine Learning},
  year      = {2019}
}
"""

STD = 0.01  # of the initial weights, before truncation at two standard deviations


class Bottleneck(nn.Module):
    """y + Up(GELU(Down y)): (B, N, D) -> (B, N, D)."""

    def __init__(self, dim: int, hidden: int, zero_up: bool) -> None:
        super().__init__()
        self.down = nn.Linear(dim, hidden)
        self.up = nn.Linear(hidden, dim)
        for linear in (self.down, self.up):
            nn.init.trunc_normal_(linear.weight, std=STD, a=-2 * STD, b=2 * STD)
            nn.init.zeros_(linear.bias)
        if zero_up:
            nn.init.zeros_(self.up.weight)

    def forward(self, y: Tensor) -> Tensor:
        return y + self.up(F.gelu(self.down(y), approximate="tanh"))


@dataclass(frozen=True)
class Houlsby(Method):
    """Adapter (Houlsby): a sequential bottleneck on the output of MHSA and of the MLP; norms train.

    x <- x + A(DropPath(MHSA(LN x))), and the same for the MLP

    Houlsby et al., Parameter-Efficient Transfer Learning for NLP, ICML 2019 (arXiv:1902.00751),
    section 2.1, for BERT. As there, every LayerNorm of the backbone trains too (`norms`). Weights
    start from a normal distribution of standard deviation 0.01, cut at two, as in the paper; the
    released code has 0.001. GELU in its tanh form follows that code. Near the identity at start,
    and exactly with `init="zero_up"`. BERT drops the sub-layer's output before the adapter; here
    the adapter stands behind drop-path and LayerScale in the same way. Width 8, the smallest of
    the paper's 8, 64 and 256, as the adapters of the VTAB-1K tables have it.
    """

    hidden: int = setting(8, at_least=1)
    norms: bool = True
    init: Literal["normal", "zero_up"] = "normal"

    search = {"hidden": (4, 8, 16, 32, 64), "init": ("normal", "zero_up")}

    def attach(self, backbone: Backbone) -> None:
        if self.norms:
            for norm in norms(backbone):
                norm.requires_grad_(True)
        for block in backbone.blocks:
            for branch in block.branches:
                branch.after.append(
                    Bottleneck(block.shape.dim, self.hidden, self.init == "zero_up")
                )

    def num_trainable(self, shape: Shape) -> int:
        h = self.hidden
        adapters = sum(2 * (2 * h * block.dim + h + block.dim) for block in shape.blocks)
        return adapters + (shape.num_norms if self.norms else 0)

    def identity_at_init(self) -> bool:
        return self.init == "zero_up"
