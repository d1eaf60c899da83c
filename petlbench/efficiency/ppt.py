"""PPT, performance-parameter trade-off.

Xin et al., V-PETL Bench, NeurIPS 2024 Datasets and Benchmarks: the score M of a method, its
trainable parameters P and a typical size C = 1e7 give M exp(-log10(P / C + 1)).
"""

from __future__ import annotations

import math

from petlbench.leaderboard import Row

FORMULA = "score × exp(-log10(trainable parameters without head / 1e7 + 1))"


def score(row: Row) -> float | None:
    if row.ranking is None or row.trainable_parameters is None:
        return None
    return row.ranking.mean * math.exp(-math.log10(row.trainable_parameters / 1e7 + 1))
