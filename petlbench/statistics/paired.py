"""Is one method better than another? Tests and intervals of paired scores.

Scores are fractions; `a` and `b` hold the same tasks, seeds or test examples in the same order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench.statistics import LEVEL

Floats = NDArray[np.floating[Any]]
TIE = 9  # decimals: what differs less is equal, as in the ranks of a board


@dataclass(frozen=True)
class McNemar:
    """How often one was right where the other was wrong, and the exact two-sided p-value."""

    only_a: int
    only_b: int
    p_value: float


def mcnemar(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> McNemar:
    """Of two classifiers, right or wrong on the same (N,) test examples.

    Exact: given the examples on which just one is right, either is as likely (McNemar 1947, with
    the binomial distribution instead of chi-squared); 1 if there are none.
    """
    from scipy.stats import binomtest

    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    apart = only_a + only_b
    return McNemar(only_a, only_b, float(binomtest(only_a, apart).pvalue) if apart else 1.0)


@dataclass(frozen=True)
class Wilcoxon:
    """The smaller sum of signed ranks, and the exact two-sided p-value."""

    statistic: float
    p_value: float
    n: int  # differences that are not zero
    zeros: int

    @property
    def smallest(self) -> float:
        """The p-value that n differences of one sign have: no data of this n gives less."""
        return 2.0 ** (1 - max(self.n, 1))


def wilcoxon(differences: Floats) -> Wilcoxon:
    """Signed-rank test (Wilcoxon 1945) of (T,) differences, one per task.

    Zeros are left out, as he did; tied ones share their mean rank. The p-value is exact for those
    ranks, tied or not: of all 2^n signs, the share with a sum as extreme. 1 if all are zero.
    """
    from scipy.stats import rankdata

    rounded = np.round(differences, TIE)
    kept = rounded[rounded != 0]
    doubled = np.rint(2 * rankdata(np.abs(kept))).astype(int)  # halves become whole
    ways = np.ones(1)  # ways[s]: share of the signs with s as the sum of positive doubled ranks
    for rank in doubled:
        ways = (np.pad(ways, (0, rank)) + np.pad(ways, (rank, 0))) / 2
    positive = int(doubled[kept > 0].sum())
    least = min(positive, int(doubled.sum()) - positive)
    p_value = min(1.0, 2 * float(ways[: least + 1].sum()))
    return Wilcoxon(least / 2, p_value, len(kept), len(rounded) - len(kept))


@dataclass(frozen=True)
class Difference:
    """a - b with its 95% interval."""

    mean: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """Of a: better, worse, cannot tell; equal if nothing about them differs."""
        if self.low == self.high == 0:
            return "equal"
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "cannot tell"


def difference(a: Floats, b: Floats, error: float) -> Difference:
    """On one task, of the (S,) scores of the same seeds.

    `error` is the standard error that the test examples give. Half the interval's width is

        sqrt((t_{S-1} s / sqrt(S))^2 + (z error)^2)

    with s the sample standard deviation of the differences; one seed says nothing of seeds, and
    then the part of the examples stands alone.
    """
    from scipy.special import ndtri, stdtrit

    apart, tail = a - b, (1 + LEVEL) / 2
    mean, seeds = float(apart.mean()), len(apart)
    of_seeds = float(stdtrit(seeds - 1, tail) * _error(apart)) if seeds > 1 else 0.0
    half = math.hypot(of_seeds, float(ndtri(tail)) * error)
    return Difference(mean, mean - half, mean + half)


def error_of_examples(a: Floats, b: Floats) -> float:
    """Of the mean difference of (N,) contributions to the scores, example by example."""
    return _error(a - b) if len(a) > 1 else 0.0


def error_of_counts(a: float, b: float, total: int) -> float:
    """Of a - b where only the shares of `total` examples are known: binomial and independent.

    A kappa below 0 is no share, and is taken for 0.
    """
    return math.sqrt(sum(max(each * (1 - each), 0.0) for each in (a, b)) / total)


def _error(values: Floats) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values)))


@dataclass(frozen=True)
class Improvement:
    """How likely a run of `a` beats a run of `b` on the same task, with its 95% interval."""

    probability: float
    low: float | None
    high: float | None


def probability_of_improvement(
    a: Floats, b: Floats, count: int = 10_000, seed: int = 0
) -> Improvement:
    """Of (T, S) scores of runs: the mean over tasks of P(a > b), a tie counting half.

    Agarwal et al. 2021 (arXiv:2108.13264), section 4.3; interval by percentiles of their
    stratified bootstrap, which draws the runs of every task and method anew: too narrow where there
    are few. None with one seed.
    """
    above = np.sign(np.round(a[:, :, None] - b[:, None, :], TIE)) / 2 + 0.5  # (T, Sa, Sb)
    probability = float(above.mean())
    if max(a.shape[1], b.shape[1]) == 1:
        return Improvement(probability, None, None)
    rng = np.random.default_rng(seed)

    def drawn(runs: int) -> Floats:
        shares: Floats = rng.multinomial(runs, np.full(runs, 1 / runs), (count, len(a))) / runs
        return shares

    means = np.einsum(
        "cti,tij,ctj->c", drawn(a.shape[1]), above, drawn(b.shape[1]), optimize=True
    ) / len(a)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).clip(0, 1)
    return Improvement(probability, float(low), float(high))
