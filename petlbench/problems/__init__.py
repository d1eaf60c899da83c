"""What is trained and measured: one module per kind of task, found by its file name.

A problem is a module with these functions; the engine calls them and knows no more of it.

    METRICS              names of its metrics, the one that ranks by default first
    require(...)         raise UsageError where backbone or protocol cannot serve it
    prepare(...)         freeze a backbone and give it what is trained and read beside a method
    fit(...)             train an adapted backbone on a split
    outputs(...)         what it says about a split
    score(...)           the metrics of that
    imaginary(...)       a split of random images, to measure speeds with
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from petlbench import found


@dataclass(frozen=True)
class Fitted:
    """What training left besides the weights."""

    loss: Sequence[float] = ()  # mean of each epoch
    frozen_stages: int = 0  # computed once per image instead of once per epoch
    micro_batches: int = 1  # parts in which a batch had to be taken for lack of memory


@dataclass(frozen=True)
class Outcome:
    """What a test found. Metrics are fractions in [0, 1], kappa in [-1, 1]."""

    total: int  # of what the metrics are means over
    metrics: Mapping[str, float]
    correct: int | None = None  # where there is such a thing
    arrays: Mapping[str, Any] = field(default_factory=dict)  # of NumPy, kept beside a record

    def as_dict(self, metric: str) -> dict[str, Any]:
        """As stored in a record; `metric` is the one that ranks."""
        counts = {} if self.correct is None else {"correct": self.correct}
        return {**counts, "total": self.total, "metric": metric, "metrics": dict(self.metrics)}


def names() -> list[str]:
    return found.names(__path__)


def load(name: str) -> Any:
    """The module of that problem."""
    return found.load(__name__, "problem", name, names())
