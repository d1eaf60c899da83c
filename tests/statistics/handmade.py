"""Panels made of arrays, without a comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from petlbench.statistics.panel import Panel

Array = NDArray[np.float64]


def panel(
    scores: Array, added: Sequence[Array] | None = None, groups: Sequence[int] | None = None
) -> Panel:
    """Of `scores` (methods, tasks, seeds).

    `added`: (methods, examples) of every task; without it test examples tell nothing and vary not.
    `groups`: how many tasks each has; one group of all tasks without it.
    """
    methods, tasks, seeds = scores.shape
    names = [f"task {t}" for t in range(tasks)]
    ends = np.cumsum(groups if groups is not None else [tasks]).tolist()
    parts = [tuple(names[a:b]) for a, b in zip([0, *ends], ends, strict=False)]
    still = [np.full((methods, 2), 0.5)] * tasks
    of_task = dict(zip(names, still if added is None else added, strict=True))
    return Panel(
        methods=tuple(f"method {m}" for m in range(methods)),
        groups=tuple((f"group {g}", part) for g, part in enumerate(parts)),
        seeds=tuple(range(seeds)),
        ranking="mean of groups",
        scores=scores,
        totals=np.array([of_task[name].shape[1] for name in names], dtype=float),
        runs=tuple(range(tasks)),
        tests=tuple(range(tasks)),
        load=lambda task: [{} if np.isnan(m).any() else {0: m} for m in of_task[task]],
    )
