"""How counts and metrics are written in sentences, tables and figures."""

from __future__ import annotations

import re

_METRICS = {
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "quadratic_kappa": "quadratic-weighted kappa",
}


def count(number: int, noun: str) -> str:
    """Of 1 "1 task", of 1900 "1,900 tasks"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def metric(name: str) -> str:
    """As papers write it: of "auroc" "AUROC", of "t2i_r1" "T2I R@1"."""
    if recall := re.fullmatch(r"(i2t|t2i)_r(\d+)", name):
        return f"{recall[1].upper()} R@{recall[2]}"
    return _METRICS.get(name, name.replace("_", " "))
