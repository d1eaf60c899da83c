"""Agreement of errors against scikit-learn, and votes counted by hand."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from petlbench.statistics import agreement as module

LABELS = np.array([0, 1, 2, 0, 1])


@given(st.integers(0, 999), st.integers(2, 40))
def test_kappa_is_scikit_learns(seed: int, n: int) -> None:
    a, b = np.random.default_rng(seed).random((2, n)) < 0.7
    found = module.kappa(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(cohen_kappa_score(a, b))


def test_shares_of_errors_are_means_over_seeds() -> None:
    a = np.array([[0, 1, 2, 1, 0], [0, 1, 2, 0, 0]])  # wrong on the last two; on the last
    b = np.array([[0, 1, 2, 1, 0], [1, 1, 2, 0, 1]])  # wrong on the last two; on the first
    found = module.agreement(a, b, LABELS)
    assert found.kappa == pytest.approx((1 - 0.25) / 2)  # 1, and (0.6 - 0.68) / (1 - 0.68)
    assert found.both_wrong == pytest.approx((2 / 5 + 0) / 2)
    assert found.by_chance == pytest.approx((4 / 25 + 1 / 25) / 2)


def test_nothing_to_agree_on() -> None:
    right = np.stack([LABELS, LABELS])
    found = module.agreement(right, right[:, ::-1], LABELS)
    assert found.kappa is None
    assert found.both_wrong == found.by_chance == 0
    assert found.ensemble == found.ensemble_a == 1


@given(st.integers(0, 999), st.integers(1, 5), st.integers(2, 4))
def test_plurality_counts_votes(seed: int, seeds: int, classes: int) -> None:
    better, other = np.random.default_rng(seed).integers(0, classes, (2, seeds, 12))
    found = module.plurality(better, other)
    for n in range(12):
        votes = Counter([*better[:, n].tolist(), *other[:, n].tolist()])
        own = Counter(better[:, n].tolist())
        expected = max(sorted(votes), key=lambda c: (votes[c], own[c]))
        assert found[n] == expected


def test_with_one_seed_the_ensemble_is_the_better_method() -> None:
    a, b = np.array([[0, 1, 0, 0, 0]]), np.array([[1, 1, 2, 2, 2]])
    assert (a == LABELS).sum() > (b == LABELS).sum()
    for found in (module.agreement(a, b, LABELS), module.agreement(b, a, LABELS)):
        assert found.ensemble == pytest.approx(3 / 5)


def test_an_ensemble_can_be_better_than_each() -> None:
    a = np.array([[0, 1, 2, 0, 0], [0, 1, 0, 0, 1]])
    b = np.array([[0, 1, 2, 1, 1], [0, 0, 2, 0, 1]])
    found = module.agreement(a, b, LABELS)
    assert found.ensemble == 1.0
    assert found.ensemble > max((a == LABELS).mean(), (b == LABELS).mean())
    assert found.ensemble_a == pytest.approx(3 / 5)  # both ties go to class 0
