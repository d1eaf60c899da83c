"""Seeds to add to a comparison that has results, so that its ties are settled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from petlbench.statistics import panel as panels
from petlbench.statistics.bootstrap import Bootstrap
from petlbench.statistics.resolve import Proposal, propose

if TYPE_CHECKING:
    from petlbench.leaderboard import Row
    from petlbench.results import Results


@dataclass(frozen=True)
class Resolution:
    """What to add to which row, and what it costs."""

    rows: tuple[Row, ...]  # best first; what `proposal` counts from 0
    methods: tuple[str, ...]  # of each row, without its settings
    hours: tuple[float, ...]  # of one seed of each row: training and test on all tasks
    proposal: Proposal
    without_predictions: tuple[str, ...]  # rows

    def more(self, row: int) -> int:
        """Seeds to add to it."""
        return self.proposal.seeds[row] - len(self.rows[row].seeds)


def resolve(results: Results, rows: Sequence[Row], at_most: float = math.inf) -> Resolution:
    """The proposal for these ranked rows, of at most so many hours.

    The hours are those of the records; several runs at a time take fewer.
    """
    panel = panels.of(results, [row.method for row in rows])
    boot = Bootstrap(panel)
    hours = tuple(_hours(results, row) for row in rows)
    proposal = propose(boot, hours, at_most)
    methods = tuple(results.of(row)[0]["spec"]["method"]["name"] for row in rows)
    return Resolution(tuple(rows), methods, hours, proposal, tuple(boot.without_predictions()))


def _hours(results: Results, row: Row) -> float:
    seconds = [record["train_seconds"] + record["test_seconds"] for record in results.of(row)]
    return math.fsum(seconds) / len(row.seeds) / 3600
