"""What the figures of searches share: trials, what judged them, and under which rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from petlbench import wording
from petlbench.errors import UsageError
from petlbench.leaderboard import Record
from petlbench.plots._base import Array


def trials(record: Record) -> Array:
    """The validation score of every trial, NaN where it has none."""
    values = [trial["value"] for trial in record["search"]["trials"]]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def judged(searched: Mapping[str, Sequence[Record]]) -> str:
    """What trials are judged by."""
    found = {run["search"]["metric"] for runs in searched.values() for run in runs}
    return wording.metric(found.pop()) if len(found) == 1 else "score"


def rules(searched: Mapping[str, Sequence[Record]]) -> str:
    """Budget, sampler and split in words. UsageError for different budgets."""
    runs = [run["search"] for found in searched.values() for run in found]
    counts = sorted({len(search["trials"]) for search in runs})
    if len(counts) > 1:
        raise UsageError(
            f"searches of {' and '.join(map(str, counts))} trials must not share a plot: "
            "a larger budget flatters. Draw each from a results folder of its own."
        )
    how = ", ".join(sorted({search["sampler"] for search in runs}))
    where = ", ".join(sorted({s["val_split"] for s in runs if "val_split" in s}))
    return f"{wording.count(counts[0], 'trial')} a task ({how})" + (
        f", judged on {where}" if where else ""
    )
