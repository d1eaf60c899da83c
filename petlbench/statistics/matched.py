"""Where a budget falls among the settings of a method, and how much each of them counts there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from petlbench.statistics.panel import Array

# Costs that differ by less are the same cost: repeated measurements of time differ by as much.
SAME = 0.05


@dataclass
class Outside(Exception):
    """No settings lie on both sides of the budget; it holds the range that they span."""

    low: float
    high: float


@dataclass
class Ambiguous(Exception):
    """Several settings cost the same, where the budget falls; it holds their indices."""

    settings: tuple[int, ...]


def weights(costs: Array, budget: float) -> Array:
    """(settings,), of sum 1: what is measured times these is what the method has at the budget.

    Piecewise linear in log10(cost) between the two settings around the budget. Where the budget is
    within 5% of the cheapest or the most expensive setting, that one alone counts; beyond that
    nothing is known. Two settings within 5% of each other are no curve: which of them stands for
    the method there is a choice, and a choice by test scores is tuning on the test set, so it is
    left to whoever asks. Their average would stand for a method that nobody would run.

    Args:
        costs: (settings,), above 0, in any order.

    Raises:
        Outside, Ambiguous: See there.
    """
    if not (costs.min() / (1 + SAME) <= budget <= costs.max() * (1 + SAME)):
        raise Outside(float(costs.min()), float(costs.max()))
    order = np.argsort(costs, kind="stable")
    x = np.log10(costs[order])
    at = float(np.clip(np.log10(budget), x[0], x[-1]))
    above = min(int(np.searchsorted(x, at)), len(x) - 1)  # the first at the budget or above it
    ends = [above] if x[above] == at else [above - 1, above]
    same = np.log10(1 + SAME)
    near = np.flatnonzero((x >= x[ends[0]] - same) & (x <= x[ends[-1]] + same))
    span = x[ends[-1]] - x[ends[0]]
    if len(near) > len(ends) or 0 < span <= same:
        raise Ambiguous(tuple(sorted(order[near].tolist())))
    share = (at - x[ends[0]]) / span if span else 0.0
    found = np.zeros(len(costs))
    found[order[ends[-1]]] = share
    found[order[ends[0]]] = 1 - share
    return found
