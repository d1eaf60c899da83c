"""PSCP, PEFT soft cost penalties.

Belanec et al., PEFT-Bench (arXiv:2511.21285), equation 3 with the importance of every cost 1 and
the constants of section 4: 5e8 trainable parameters, 10 TFLOPs added to a forward pass (here of
one image), 94 GB of memory in training (the mean over runs of each one's peak). They were set for
a language model of 8e9 parameters: a vision transformer is hardly charged.
"""

from __future__ import annotations

from petlbench.leaderboard import Row

FORMULA = (
    "score / ((1 + trainable parameters without head / 5e8) (1 + TFLOPs added per image / 10) "
    "(1 + mean peak memory / 94 GB))"
)


def score(row: Row) -> float | None:
    parameters, flops, peak = row.trainable_parameters, row.added_flops, row.mean_peak_bytes
    if row.ranking is None or parameters is None or flops is None or peak is None:
        return None
    return penalised(row.ranking.mean, parameters, flops, peak)


def penalised(value: float, parameters: float, flops: float, peak_bytes: float) -> float:
    charged = (1 + parameters / 5e8) * (1 + flops / 10e12) * (1 + peak_bytes / 94e9)
    return value / charged
