"""Paired tests against SciPy and the numbers that papers print."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from petlbench.statistics import paired

# Demšar 2006 (JMLR 7), table 2: AUC of C4.5 with and without tuning m, 14 data sets.
DEMSAR = [
    *(0.005, -0.008, 0.017, 0.033, 0.006, -0.005, 0.007),
    *(0.000, 0.063, 0.000, 0.022, 0.047, 0.009, 0.021),
]


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 1), (3, 3), (5, 12), (12, 5), (40, 61), (0, 9)])
def test_mcnemar_is_both_tails_of_a_fair_coin(only_a: int, only_b: int) -> None:
    a = np.repeat([True, True, False, False], [7, only_a, only_b, 4])
    b = np.repeat([True, False, True, False], [7, only_a, only_b, 4])
    found = paired.mcnemar(a, b)
    assert (found.only_a, found.only_b) == (only_a, only_b)
    expected = min(1, 2 * stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5))
    assert found.p_value == pytest.approx(expected, rel=1e-12)


def test_mcnemar_of_methods_that_are_right_on_the_same() -> None:
    right = np.array([True, False, True])
    assert paired.mcnemar(right, right) == paired.McNemar(0, 0, 1.0)


def test_wilcoxon_of_demsar() -> None:
    # He shares out the two zeros (ranks 1.5 and 1.5): R+ = 93, R- = 12. Left out, 12 differences
    # remain, every rank is smaller by 2, and the negative ones are 5 and 1.5 instead of 7 and 3.5.
    found = paired.wilcoxon(np.array(DEMSAR))
    assert (found.statistic, found.n, found.zeros) == (6.5, 12, 2)
    shared = stats.wilcoxon(DEMSAR, zero_method="zsplit", method="asymptotic")
    assert shared.statistic == 12  # the data are his
    assert found.p_value < 0.05  # his conclusion


@given(
    st.lists(st.floats(-1, 1).map(lambda x: round(x, 6)), min_size=1, max_size=30, unique_by=abs)
)
def test_wilcoxon_without_ties_is_scipy(differences: list[float]) -> None:
    kept = [each for each in differences if each != 0]
    found = paired.wilcoxon(np.array(differences))
    assert (found.n, found.zeros) == (len(kept), len(differences) - len(kept))
    if kept:
        expected = stats.wilcoxon(kept, method="exact")
        assert found.statistic == expected.statistic
        assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=9))
def test_wilcoxon_with_ties_is_the_share_of_signs(differences: list[int]) -> None:
    kept = [each for each in differences if each != 0]
    ranks = stats.rankdata(np.abs(kept))
    total = ranks.sum()
    least = min(ranks[np.array(kept) > 0].sum(), ranks[np.array(kept) < 0].sum()) if kept else 0
    sums = [np.dot(signs, ranks) for signs in itertools.product((0, 1), repeat=len(kept))]
    share = np.mean([min(each, total - each) <= least for each in sums])
    assert paired.wilcoxon(np.array(differences) / 100).p_value == pytest.approx(share)


def test_wilcoxon_of_few_tasks_cannot_be_small() -> None:
    found = paired.wilcoxon(np.array([0.1, 0.2, 0.3, 0.4, 0.5]))
    assert found.p_value == found.smallest == 0.0625
    none = paired.wilcoxon(np.zeros(5))
    assert (none.p_value, none.n, none.zeros, none.smallest) == (1.0, 0, 5, 1.0)


def test_differences_of_rounding_are_ties() -> None:
    assert paired.wilcoxon(np.array([0.1 + 0.2 - 0.3, 0.25])).zeros == 1


def test_difference_of_seeds_alone_is_a_paired_t_interval() -> None:
    a, b = np.array([0.71, 0.74, 0.78, 0.70]), np.array([0.70, 0.69, 0.75, 0.71])
    found = paired.difference(a, b, 0.0)
    low, high = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert (found.mean, found.low, found.high) == pytest.approx(((a - b).mean(), low, high))


def test_difference_of_one_seed_is_that_of_test_examples() -> None:
    rng = np.random.default_rng(0)
    a, b = (rng.random((2, 400)) < [[0.8], [0.7]]).astype(float)
    error = paired.error_of_examples(a, b)
    found = paired.difference(a.mean(keepdims=True), b.mean(keepdims=True), error)
    # two proportions of the same examples: the formula of textbooks from the discordant pairs
    n, only_a, only_b = 400, ((a > b).sum()), ((b > a).sum())
    variance = (only_a + only_b - (only_a - only_b) ** 2 / n) / (n * (n - 1))
    half = 1.959963984540054 * math.sqrt(variance)
    assert found.high - found.mean == pytest.approx(half)
    assert found.mean - found.low == pytest.approx(half)


def test_difference_adds_both_parts_in_quadrature() -> None:
    a, b = np.array([0.71, 0.74, 0.78]), np.array([0.70, 0.69, 0.75])
    seeds, examples = paired.difference(a, b, 0.0), paired.difference(a[:1], b[:1], 0.02)
    found = paired.difference(a, b, 0.02)
    halves = [each.high - each.mean for each in (seeds, examples)]
    assert found.high - found.mean == pytest.approx(math.hypot(*halves))


def test_errors_of_counts_are_those_of_independent_proportions() -> None:
    assert paired.error_of_counts(0.8, 0.5, 100) == pytest.approx(math.sqrt(0.0016 + 0.0025))
    assert paired.error_of_counts(1.0, 0.0, 10) == 0
    assert paired.error_of_counts(-0.2, 0.5, 100) == pytest.approx(0.05)  # of a kappa


def test_examples_that_agree_make_a_difference_more_certain() -> None:
    rng = np.random.default_rng(1)
    a = (rng.random(500) < 0.8).astype(float)
    b = np.where(rng.random(500) < 0.05, 1 - a, a)
    assert paired.error_of_examples(a, b) < paired.error_of_counts(a.mean(), b.mean(), 500) / 2


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [(0.1, 0.2, "better"), (-0.2, -0.1, "worse"), (-0.1, 0.2, "cannot tell"), (0, 0, "equal")],
)
def test_what_an_interval_says(low: float, high: float, word: str) -> None:
    assert paired.Difference((low + high) / 2, low, high).verdict == word


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(0, 999))
def test_probability_of_improvement_is_mann_whitney(tasks: int, n: int, m: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 5, (tasks, n)) / 10, rng.integers(0, 5, (tasks, m)) / 10
    found = paired.probability_of_improvement(a, b, count=200)
    u = [stats.mannwhitneyu(x, y).statistic / (n * m) for x, y in zip(a, b, strict=True)]
    assert found.probability == pytest.approx(np.mean(u))
    if max(n, m) == 1:
        assert found.low is None and found.high is None
    else:
        assert found.low is not None and found.high is not None
        assert 0 <= found.low <= found.high <= 1


def test_its_interval_is_that_of_a_bootstrap_written_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(0.1, 0.1, (3, 5)), rng.normal(0.0, 0.1, (3, 4))
    draws = []
    for _ in range(4000):
        each = []
        for x, y in zip(a, b, strict=True):
            left, right = rng.choice(x, 5), rng.choice(y, 4)
            each.append(np.mean(left[:, None] > right) + np.mean(left[:, None] == right) / 2)
        draws.append(np.mean(each))
    found = paired.probability_of_improvement(a, b)
    assert (found.low, found.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.02)
    assert found == paired.probability_of_improvement(a, b)
