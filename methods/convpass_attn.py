"""Convpass-attn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from petlbench.methods.convpass import BIBTEX as BIBTEX
from petlbench.methods.convpass import Convpass


@dataclass(frozen=True)
class ConvpassAttn(Convpass):
    """Convpass-attn: Convpass with the bypass of MHSA only.

    Jie and Deng, 2022 (arXiv:2207.07039), section 4: the variant of half the size, and a preset
    of convpass, whose other settings it shares.
    """

    site: Literal["both", "attn", "mlp"] = "attn"
