"""Do several methods differ, and which? Rank tests over tasks.

Demšar 2006, Statistical Comparisons of Classifiers over Multiple Data Sets (JMLR 7). Scores are
(M, T), methods x tasks, and more is better; rank 1 is the best.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.statistics.paired import TIE, wilcoxon

Floats = NDArray[np.floating[Any]]


def ranks(scores: Floats) -> Floats:
    """(M, T) within each task; equal methods share the mean of their ranks."""
    from scipy.stats import rankdata

    found: Floats = rankdata(-np.round(scores, TIE), axis=0)
    return found


def average_ranks(scores: Floats) -> Floats:
    """(M,) mean over tasks."""
    found: Floats = ranks(scores).mean(axis=1)
    return found


@dataclass(frozen=True)
class Friedman:
    """Whether all methods have one distribution of ranks."""

    chi2: float
    f: float | None  # None where every task has the same order, and F no bound
    p_value: float  # of F; of chi-squared where F is None
    methods: int
    tasks: int

    @property
    def degrees(self) -> tuple[int, int]:
        """Of freedom, of F."""
        return self.methods - 1, (self.methods - 1) * (self.tasks - 1)


def friedman(scores: Floats) -> Friedman:
    """Friedman's chi-squared, corrected for ties, and F, which is less conservative.

    The latter is Iman and Davenport's (1980; Demšar 2006, section 3.2.2). p = 1 if all are equal.

    Raises:
        ValueError: Fewer than three methods or two tasks.
    """
    from scipy.stats import chi2, f

    methods, tasks = scores.shape
    if methods < 3 or tasks < 2:
        raise ValueError(f"Friedman's test needs 3 methods and 2 tasks, not {methods} and {tasks}.")
    found = ranks(scores)
    # with ties, ranks vary less: their own variance instead of that of 1..M, (M^2 - 1) / 12
    variance = ((found - (methods + 1) / 2) ** 2).sum() / (tasks * (methods - 1))
    spread = ((found.mean(axis=1) - (methods + 1) / 2) ** 2).sum()
    statistic = float(tasks * spread / variance) if variance else 0.0
    of_f = iman_davenport(statistic, methods, tasks)
    if math.isinf(of_f):
        p_value = float(chi2.sf(statistic, methods - 1))
        return Friedman(statistic, None, p_value, methods, tasks)
    p_value = float(f.sf(of_f, methods - 1, (methods - 1) * (tasks - 1)))
    return Friedman(statistic, of_f, p_value, methods, tasks)


def iman_davenport(chi2: float, methods: int, tasks: int) -> float:
    """F = (N - 1) chi2 / (N (k - 1) - chi2); infinite where every task has the same order."""
    left = tasks * (methods - 1) - chi2
    return (tasks - 1) * chi2 / left if left > 1e-9 * tasks * methods else math.inf


def critical_difference(methods: int, tasks: int, alpha: float = 0.05) -> float:
    """How far apart average ranks must be to differ: q_alpha sqrt(k (k + 1) / (6 N)).

    Nemenyi's test (Demšar 2006, section 3.2.2 and table 5): q_alpha is the studentised range of
    infinite degrees of freedom over sqrt(2).
    """
    from scipy.stats import studentized_range

    q = float(studentized_range.ppf(1 - alpha, methods, np.inf)) / math.sqrt(2)
    return q * math.sqrt(methods * (methods + 1) / (6 * tasks))


def holm(p_values: Floats) -> Floats:
    """(P,) p-values of one family, adjusted: reject where they are below alpha (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    factors = len(p_values) - np.arange(len(p_values))
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p_values[order]))
    return adjusted


def pairwise_wilcoxon(scores: Floats) -> Floats:
    """(M, M) Holm-adjusted p-values of the signed-rank test of every pair; 1 on the diagonal."""
    pairs = list(combinations(range(len(scores)), 2))
    each = np.array([wilcoxon(scores[i] - scores[j]).p_value for i, j in pairs])
    found = np.ones((len(scores), len(scores)))
    for (i, j), p_value in zip(pairs, holm(each), strict=True):
        found[i, j] = found[j, i] = p_value
    return found
