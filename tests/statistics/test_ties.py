"""Pairs told apart: t tests with Bonferroni in a case that has them, errors as rare as promised."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from handmade import Array, panel
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from petlbench.statistics import ties
from petlbench.statistics.bootstrap import Bootstrap

MEAN = "mean of groups"
Flags = ties.Flags


def told(found: Array, over_tasks: bool = False, count: int = 1000, seed: int = 0) -> Flags:
    """(methods, methods), as a board tells it."""
    return ties.apart(Bootstrap(panel(found), count, seed), MEAN, over_tasks)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_pairs_on_one_task_are_paired_t_tests(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    found = rng.normal(np.linspace(0.2, 0.8, 8)[:, None, None], 0.01, (8, 1, seeds))
    found = found + rng.normal(0, 0.05, (1, 1, seeds))  # cancels in pairs
    flags, clear = told(found, count=20_000), 0
    for i, j in combinations(range(8), 2):
        p_value = stats.ttest_rel(found[i, 0], found[j, 0]).pvalue * 28
        if not 0.045 < p_value < 0.055:  # the draws are finite
            assert flags[i, j] == flags[j, i] == (p_value < 0.05), (i, j, p_value)
            clear += p_value < 0.05
    assert not flags.diagonal().any()
    assert clear or seeds == 2  # with one degree of freedom nothing is clear


def test_the_critical_value_is_bonferronis() -> None:
    assert ties.critical(6) == pytest.approx(stats.norm.isf(0.025 / 6)) and ties.pairs(4) == 6


def test_what_moves_together_is_never_apart() -> None:
    luck = np.random.default_rng(0).normal(0, 0.01, (1, 4, 3))
    found = np.array([0.5, 0.7, 0.7])[:, None, None] + luck
    boot = Bootstrap(panel(found), 1000)
    assert not ties.apart(boot, MEAN).any() and not ties.apart_from_best(boot, MEAN).any()


def test_apart_from_best_is_apart_of_two() -> None:
    noise = np.random.default_rng(1).normal(0, 0.01, (2, 5, 3))
    both = []
    for gap in np.linspace(0, 0.06, 13):
        boot = Bootstrap(panel(noise + np.array([0.5, 0.5 + gap])[:, None, None]), 1000)
        best = int(np.argmax(boot.panel.mean(MEAN)))
        both.append(bool(ties.apart(boot, MEAN)[0, 1]))
        assert ties.apart_from_best(boot, MEAN)[1 - best] == both[-1]
    assert set(both) == {False, True}


def test_points_between_methods() -> None:
    """Half of one and half of another is a method of the mean scores."""
    found = np.random.default_rng(2).normal(
        np.linspace(0.6, 0.8, 4)[:, None, None], 0.02, (4, 5, 3)
    )
    mix = np.array([[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
    halves = Bootstrap(panel(np.einsum("pm,mts->pts", mix, found)), 1000)
    asked = ties.apart(Bootstrap(panel(found), 1000), MEAN, of=mix)
    assert asked.tolist() == ties.apart(halves, MEAN).tolist()


# --- how often equal methods are told apart: 5% is promised; the seeds of these tests are fixed


@pytest.mark.parametrize(
    ("methods", "tasks", "seeds", "over_tasks"),
    [
        (6, 1, 2, False),
        (6, 1, 5, False),
        (6, 5, 3, False),
        (6, 19, 3, False),
        (20, 1, 3, False),
        (20, 5, 2, False),
        (6, 5, 3, True),
        (6, 19, 2, True),
    ],
)
def test_equal_methods_are_rarely_told_apart(
    methods: int, tasks: int, seeds: int, over_tasks: bool
) -> None:
    repeats, wrong = 200, 0
    for i in range(repeats):
        rng = np.random.default_rng(i)
        of_tasks = rng.normal(0.7, 0.03 if over_tasks else 0, (methods, tasks, 1))
        noise = 0.01 * rng.lognormal(0, 0.7, (methods, tasks, 1))  # as unequal as tasks are
        wrong += told(
            rng.normal(of_tasks, noise, (methods, tasks, seeds)), over_tasks, seed=i
        ).any()
    assert wrong / repeats <= 0.07


@pytest.mark.parametrize(("tasks", "seeds"), [(1, 3), (5, 2), (19, 3)])
def test_the_best_is_rarely_left_out(tasks: int, seeds: int) -> None:
    repeats, wrong = 200, 0
    for i in range(repeats):
        rng = np.random.default_rng(i)
        found = rng.normal(0.7, 0.01, (8, tasks, seeds))
        found[1:] -= rng.uniform(0, 0.01, (7, 1, 1))  # the first is best, and not by much
        boot = Bootstrap(panel(found), 1000, seed=i)
        wrong += bool(ties.apart_from_best(boot, MEAN)[0])
    assert wrong / repeats <= 0.05


def test_a_clear_difference_is_told() -> None:
    rng = np.random.default_rng(3)
    found = rng.normal([[[0.7]], [[0.7]], [[0.8]]], 0.01, (3, 19, 3))
    assert told(found)[2].tolist() == [True, True, False]


# --- letters


@st.composite
def flags(draw: st.DrawFn) -> Flags:
    size = draw(st.integers(1, 9))
    found = np.zeros((size, size), dtype=bool)
    for i, j in combinations(range(size), 2):
        found[i, j] = found[j, i] = draw(st.booleans())
    return found


@given(flags())
def test_methods_share_a_letter_exactly_if_they_are_not_apart(apart: Flags) -> None:
    letters = [ties.split(each) for each in ties.letters(apart)]
    assert all(letters) and "a" in letters[0]
    for i, j in combinations(range(len(apart)), 2):
        assert bool(letters[i] & letters[j]) != apart[i, j]
    groups = [{m for m, own in enumerate(letters) if x in own} for x in set().union(*letters)]
    assert not any(one < other for one in groups for other in groups)


def test_letters_after_z() -> None:
    letters = ties.letters(~np.eye(30, dtype=bool))
    assert letters[0] == "a" and letters[25] == "z" and letters[26] == "a2" and letters[29] == "d2"
    assert not ties.split(letters[0]) & ties.split(letters[26])
    assert ties.split("baa2z13") == {"b", "a", "a2", "z13"}


def test_letters_of_an_order_are_runs() -> None:
    means = np.array([9, 8, 7, 4, 3.5])
    assert ties.letters(np.abs(means[:, None] - means) > 1.5) == ["a", "ab", "b", "c", "c"]
