"""Proposed seeds against simulation: panels whose noise is known."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import pytest

from petlbench.statistics import ties
from petlbench.statistics.bootstrap import Bootstrap
from petlbench.statistics.panel import Array, Panel
from petlbench.statistics.resolve import (
    LIMIT,
    PILOT,
    POWER,
    Noise,
    Proposal,
    covariance,
    noise,
    propose,
)

TASKS = tuple("abcdef")
EXAMPLES = 1_200


@dataclass(frozen=True)
class World:
    """Test sets that stay, of some methods, and how noisy seeds are; standard deviations.

    An example adds `means` + what is its own (`example`) + what it and the seed make (`both`) +
    what the seed makes (`seed`), all independent between methods.
    """

    means: tuple[float, ...]
    example: float = 0.3
    both: float = 0.3
    seed: float = 0.01
    number: int = 0
    tasks: tuple[str, ...] = TASKS
    fixed: Array = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([7, self.number])
        shape = (len(self.means), len(self.tasks), EXAMPLES)
        object.__setattr__(self, "fixed", self.example * rng.standard_normal(shape))

    def with_differences(self, of: Array) -> World:
        """The same test sets, on which endless seeds would give these means."""
        return replace(self, means=tuple(of - self.fixed.mean(axis=(1, 2))))

    def sweep(self, seeds: tuple[int, ...], number: int = 0) -> Panel:
        """A panel with so many seeds of each method."""
        rng = np.random.default_rng([8, self.number, number])
        shape = (len(self.means), len(self.tasks), max(seeds))
        added = np.array(self.means)[:, None, None, None] + self.fixed[:, :, None]
        added = added + self.both * rng.standard_normal((*shape, EXAMPLES))
        added += self.seed * rng.standard_normal(shape)[..., None]
        for m, count in enumerate(seeds):
            added[m, :, count:] = np.nan
        return Panel(
            methods=tuple(f"m{m}" for m in range(len(seeds))),
            groups=(("all", self.tasks),),
            seeds=tuple(range(max(seeds))),
            ranking="mean of tasks",
            scores=added.mean(axis=3),
            totals=np.full(len(self.tasks), float(EXAMPLES)),
            runs=tuple(range(len(self.tasks))),
            tests=tuple(range(len(self.tasks))),
            load=lambda task: [
                dict(enumerate(each[:count]))
                for each, count in zip(added[:, self.tasks.index(task)], seeds, strict=True)
            ],
        )


def proposal(panel: Panel, hours: tuple[float, ...], **more: float) -> Proposal:
    return propose(Bootstrap(panel, count=2_000), hours, **more)


def test_covariance_is_that_of_pairwise_complete_seeds() -> None:
    rng = np.random.default_rng(0)
    added = rng.standard_normal((4, 6, 3)) + rng.standard_normal((1, 6, 3))
    added[0, 4:] = added[1, :2] = added[2, 1:] = np.nan
    each = [pd.DataFrame(added[:, :, i].T).cov(min_periods=2).to_numpy() for i in range(3)]
    expected = np.nan_to_num(np.mean(each, axis=0))
    expected[2, 2] = np.nan  # one seed
    np.testing.assert_allclose(covariance(added), expected, atol=1e-12)


def test_the_parts_of_the_noise_are_found() -> None:
    tasks = tuple(f"t{i}" for i in range(30))
    world = World((0.7, 0.7), example=0.3, both=0.4, seed=0.02, tasks=tasks)
    panel = world.sweep((8, 8))
    found = noise(panel)
    t = len(tasks)
    np.testing.assert_allclose(found.seeds.diagonal(), (0.02**2 + 0.4**2 / EXAMPLES) / t, rtol=0.25)
    np.testing.assert_allclose(found.both.diagonal(), 0.4**2 / EXAMPLES / t, rtol=0.05)
    np.testing.assert_allclose(found.examples.diagonal(), 0.3**2 / EXAMPLES / t, rtol=0.05)
    assert found.floor(0, 1) == pytest.approx(2 * 0.3**2 / EXAMPLES / t, rel=0.05)


def test_what_ties_count_is_what_the_bootstrap_finds() -> None:
    """Variance of a difference, from formulas and from 20,000 resamples; unequal seeds too."""
    for seeds in ((4, 4), (5, 5), (6, 6)):
        world = World((0.7, 0.72), number=sum(seeds))
        panel = world.sweep(seeds)
        boot = Bootstrap(panel, count=20_000)
        (error,) = boot.errors(panel.ranking, np.array([[1.0, -1.0]]))
        counted = noise(panel).variance(0, 1, *seeds)[1]
        assert error**2 == pytest.approx(float(counted), rel=0.06)


def test_variance_of_a_difference_with_unequal_seeds() -> None:
    rng = np.random.default_rng(1)
    root = np.array([[1.0, 0.0], [0.8, 0.5]])
    drawn = rng.standard_normal((200_000, 7, 2)) @ root.T
    difference = drawn[:, :3, 0].mean(axis=1) - drawn[:, :, 1].mean(axis=1)
    nothing = np.zeros((2, 2))
    plain, _ = Noise(root @ root.T, nothing, nothing, np.full((2, 2), 5)).variance(0, 1, 3, 7)
    assert float(plain) == pytest.approx(difference.var(), rel=0.02)


def test_the_promise_is_kept() -> None:
    """Sweeps with the seeds that were proposed settle the pair about as often as promised.

    The true difference is what the pilot saw, as the promise says.
    """
    settled, promised = [], []
    for number in range(40):
        world = World((0.700, 0.688), number=number, seed=0.012, example=0.15)
        pilot = world.sweep((4, 4))
        found = proposal(pilot, (1.0, 1.0))
        if not found.pairs or found.pairs[0].chance < POWER:
            continue
        promised.append(found.pairs[0].chance)
        again = world.with_differences(np.nanmean(pilot.scores, axis=(1, 2)))
        for repetition in range(12):
            panel = again.sweep(found.seeds, 1 + repetition)
            settled.append(ties.apart(Bootstrap(panel, count=500), panel.ranking)[0, 1])
    assert len(promised) >= 10
    assert np.mean(settled) == pytest.approx(np.mean(promised), abs=0.08)


def test_a_difference_below_what_examples_tell_takes_no_seeds() -> None:
    world = World((0.7, 0.7), seed=0.03).with_differences(np.array([0.701, 0.700]))
    panel = world.sweep((3, 3))
    panel = replace(panel, scores=panel.scores - panel.scores.mean(axis=(1, 2), keepdims=True))
    panel.scores[0] += 0.701
    panel.scores[1] += 0.700
    found = proposal(panel, (1.0, 1.0))
    (pair,) = found.pairs
    assert pair.difference == pytest.approx(0.001)
    assert pair.difference < pair.least_ever < pair.least
    # by hand: 1.96 times the deviation of a mean over 6 tasks of 1,200 examples
    by_hand = 1.96 * math.sqrt(2 * 0.3**2 / EXAMPLES / len(TASKS))
    assert pair.least_ever == pytest.approx(by_hand, rel=0.15)
    assert pair.needed == math.inf and pair.chance < 0.5
    assert found.seeds == (3, 3) and found.hours == 0


def test_a_small_difference_takes_more_seeds_than_are_proposed() -> None:
    world = World((0.7, 0.698), example=0.0, both=0.0, seed=0.02)
    panel = world.sweep((3, 3), number=2)
    panel.scores[:] -= panel.scores.mean(axis=(1, 2), keepdims=True)
    panel.scores[0] += 0.702
    panel.scores[1] += 0.700
    found = proposal(panel, (1.0, 1.0))
    (pair,) = found.pairs
    # (1.96 + 0.84)^2 * 2 * 0.02^2 / 6 tasks / 0.002^2, the usual power analysis
    assert pair.needed == pytest.approx(2.8**2 * 2 * 0.02**2 / 6 / 0.002**2, rel=0.5)
    assert LIMIT < pair.needed < math.inf
    assert found.seeds == (3, 3)


def test_one_seed_gets_a_pilot_first() -> None:
    world = World((0.7, 0.699, 0.3))
    panel = world.sweep((1, 1, 1))
    found = proposal(panel, (2.0, 3.0, 100.0))
    (pair,) = found.pairs
    assert {pair.better, pair.worse} == {0, 1}
    assert math.isnan(pair.needed) and math.isnan(pair.chance) and math.isnan(pair.least_ever)
    assert found.seeds == (PILOT, PILOT, 1)  # the third is in no tie
    assert found.hours == (PILOT - 1) * 5.0
    assert proposal(panel, (2.0, 3.0, 1.0), at_most=5.0).seeds == (PILOT, 1, 1)


def three() -> Panel:
    world = World((0.71, 0.70, 0.69), seed=0.035, example=0.05)
    panel = world.sweep((3, 3, 3))
    panel.scores[:] -= panel.scores.mean(axis=(1, 2), keepdims=True)
    panel.scores[:] += np.array([0.72, 0.70, 0.68])[:, None, None]
    return panel


def test_seeds_go_where_they_are_cheap() -> None:
    panel = three()
    cheap = proposal(panel, (1.0, 1.0, 1.0))
    dear = proposal(panel, (1.0, 100.0, 1.0))
    assert dear.seeds[1] < cheap.seeds[1]
    assert dear.seeds[2] > cheap.seeds[2]  # it takes more of them instead
    for found in (cheap, dear):
        assert all(pair.chance >= POWER for pair in found.pairs)


def test_the_best_methods_come_first_and_hours_bound_them() -> None:
    panel = three()
    every = proposal(panel, (1.0, 1.0, 1.0))
    places = [(pair.better, pair.worse) for pair in every.pairs]
    assert places == sorted(places) and (0, 1) in places and (1, 2) in places
    some = proposal(panel, (1.0, 1.0, 1.0), at_most=every.hours - 1)
    assert some.hours <= every.hours - 1
    chances = {(pair.better, pair.worse): pair.chance for pair in some.pairs}
    assert chances[0, 1] >= POWER > chances[1, 2]  # the tie at the top is settled first
    assert proposal(panel, (1.0, 1.0, 1.0), at_most=0.5).seeds == (3, 3, 3)


def test_nothing_is_proposed_for_what_is_settled() -> None:
    world = World((0.9, 0.5))
    panel = world.sweep((3, 3))
    found = proposal(panel, (1.0, 1.0))
    assert found.pairs == () and found.seeds == (3, 3) and found.hours == 0


def test_without_predictions_examples_count_as_binomial() -> None:
    panel = World((0.7, 0.695)).sweep((3, 3))
    panel = replace(panel, load=lambda task: [{}, {}])
    found = noise(panel)
    shares = panel.means * (1 - panel.means)
    expected = shares.sum(axis=1) / EXAMPLES / len(TASKS) ** 2
    np.testing.assert_allclose(found.examples, np.diag(expected))
    assert not found.both.any()
