"""Interpolation against hand computation, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.statistics.matched import SAME, Ambiguous, Outside, weights


def test_half_way_on_the_logarithmic_axis_both_count_half() -> None:
    assert weights(np.array([1e4, 1e6]), 1e5) == pytest.approx([0.5, 0.5])
    # by hand: log10(300/100) / log10(1000/100) = 0.4771
    assert weights(np.array([100.0, 1000.0]), 300) == pytest.approx([0.5229, 0.4771], abs=1e-4)


def test_only_the_two_around_the_budget_count() -> None:
    found = weights(np.array([64e3, 1e3, 4e3, 16e3]), 8e3)
    assert found == pytest.approx([0, 0, 0.5, 0.5])


def test_a_setting_at_the_budget_counts_alone() -> None:
    assert weights(np.array([1e3, 4e3, 16e3]), 4e3).tolist() == [0, 1, 0]
    assert weights(np.array([4e3]), 4e3).tolist() == [1]


@pytest.mark.parametrize("budget", [1e3 / 1.04, 16e3 * 1.04])
def test_a_little_outside_counts_as_the_end(budget: float) -> None:
    found = weights(np.array([1e3, 16e3]), budget)
    assert sorted(found.tolist()) == [0, 1]
    assert found[0 if budget < 1e3 else 1] == 1


@pytest.mark.parametrize("budget", [1e3 / 1.06, 16e3 * 1.06])
def test_nothing_is_extrapolated(budget: float) -> None:
    with pytest.raises(Outside) as caught:
        weights(np.array([16e3, 1e3]), budget)
    assert (caught.value.low, caught.value.high) == (1e3, 16e3)


@pytest.mark.parametrize(
    ("costs", "budget", "which"),
    [
        ([1e3, 1e3], 1e3, (0, 1)),
        ([1e3, 1.02e3, 4e3], 2e3, (0, 1, 2)),  # of the two lower ones, neither is chosen
        ([4e3, 1e3, 1e3], 4e3, ()),  # far from the budget they do no harm
        ([1e3, 1.04e3], 1.02e3, (0, 1)),
    ],
)
def test_settings_of_the_same_cost_are_no_curve(
    costs: list[float], budget: float, which: tuple[int, ...]
) -> None:
    if not which:
        assert weights(np.array(costs), budget).tolist() == [1, 0, 0]
        return
    with pytest.raises(Ambiguous) as caught:
        weights(np.array(costs), budget)
    assert caught.value.settings == which


@given(
    st.lists(st.floats(0.1, 1), min_size=2, max_size=6),
    st.floats(0, 1),
    st.randoms(use_true_random=False),
)
def test_it_reproduces_what_is_linear_and_does_not_mind_the_order(
    steps: list[float], share: float, random: object
) -> None:
    x = 3 + np.cumsum(steps)  # log10, more than 5% apart
    order = np.arange(len(x))
    random.shuffle(order)  # type: ignore[attr-defined]
    at = x[0] + share * (x[-1] - x[0])
    found = weights(10 ** x[order], 10**at)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all() and np.count_nonzero(found) <= 2
    assert found @ x[order] == pytest.approx(at)
    assert found @ np.sqrt(x[order]) == pytest.approx(np.interp(at, x, np.sqrt(x)))
    assert np.log10(1 + SAME) < min(steps)
