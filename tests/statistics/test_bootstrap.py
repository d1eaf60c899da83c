"""Variances of the levels in closed form, and intervals that hold the truth as often as said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import synthetic
from handmade import Array, panel
from scipy import stats

from petlbench.statistics import bootstrap
from petlbench.statistics import panel as panels
from petlbench.statistics.bootstrap import Bootstrap, widening

MEAN = "mean of groups"
COUNT = 20_000  # a standard deviation of so many draws is off by 0.5%


def scores(methods: int = 3, tasks: int = 5, seeds: int = 3) -> Array:
    rng = np.random.default_rng([methods, tasks, seeds])
    shared = rng.normal(0, 0.02, (1, tasks, seeds))  # luck of a seed, the same for all
    found = rng.normal(0.7, 0.05, (methods, tasks, 1)) + shared
    return np.asarray(found + rng.normal(0, 0.02, (methods, tasks, seeds)))


def examples(methods: int, tasks: int, n: int) -> list[Array]:
    rng = np.random.default_rng(n)
    hard = rng.normal(size=(tasks, 1, n))
    return list((hard + rng.normal(0, 0.7, (tasks, methods, n)) < 0.5).astype(float))


def t_over_z(freedom: float, questions: int = 1) -> float:
    tail = 1 - 0.025 / questions
    return float(stats.t.ppf(tail, freedom) / stats.norm.ppf(tail))


def welch(variances: list[float], freedom: list[int]) -> float:
    """Degrees of freedom of the sum, as Welch and Satterthwaite have it."""
    return sum(variances) ** 2 / sum(v**2 / f for v, f in zip(variances, freedom, strict=True))


def assert_covariance(draws: Array, expected: Array) -> None:
    """That of the draws, up to the noise of so many."""
    own = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        np.cov(draws.T) / np.outer(own, own), expected / np.outer(own, own), atol=0.05
    )


@pytest.mark.parametrize("seeds", [2, 3, 5])
@pytest.mark.parametrize("groups", [[5], [3, 2]])
def test_seeds(seeds: int, groups: list[int]) -> None:
    found = scores(seeds=seeds)
    weights = np.concatenate([np.full(size, 1 / size / len(groups)) for size in groups])
    parts = [w**2 * np.cov(found[:, t]) / seeds for t, w in enumerate(weights)]
    wide = [t_over_z(welch([part[m, m] for part in parts], [seeds - 1] * 5)) for m in range(3)]
    expected = sum(parts) * np.outer(wide, wide)
    draws = Bootstrap(panel(found, groups=groups), COUNT).draws(MEAN)
    assert_covariance(draws, np.asarray(expected))
    np.testing.assert_allclose(
        draws.mean(axis=0),
        found.mean(axis=2) @ weights,
        atol=4 * np.sqrt(np.diag(expected).max() / COUNT),
    )


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("groups", [[5], [3, 2]])
@pytest.mark.parametrize("questions", [1, 10])
@pytest.mark.parametrize("over_tasks", [False, True])
def test_errors_of_differences(
    seeds: int, groups: list[int], questions: int, over_tasks: bool
) -> None:
    """A difference has the freedom of its own noise, whatever that of its two methods is."""
    found = scores(seeds=seeds)
    found[0, 0] *= np.linspace(0.9, 1.1, seeds)  # one task is noisier, in one method
    apart = found[0] - found[1]  # (tasks, seeds)
    weights = np.concatenate([np.full(size, 1 / size / len(groups)) for size in groups])
    over_seeds = [w**2 * d.var(ddof=1) / seeds for w, d in zip(weights, apart, strict=True)]
    wide = t_over_z(welch(over_seeds, [seeds - 1] * 5), questions)
    expected = sum(over_seeds) * wide**2
    if over_tasks:
        parts = np.split(apart.mean(axis=1), np.cumsum(groups)[:-1])
        noise = [part.var(ddof=1) / len(part) / len(groups) ** 2 for part in parts]
        wide = t_over_z(welch(noise, [len(part) - 1 for part in parts]), questions)
        expected += sum(noise) * wide**2
    boot, asked = Bootstrap(panel(found, groups=groups), COUNT), np.array([[1.0, -1.0, 0.0]])
    (error,) = boot.errors(MEAN, asked, over_tasks, questions)
    assert error == pytest.approx(np.sqrt(expected), rel=1e-9)
    if questions == 1:
        draws = boot.draws(MEAN, over_tasks, of=asked)
        assert draws.shape == (COUNT, 1) and draws.std() == pytest.approx(error, rel=0.02)
        assert draws.mean() == pytest.approx(weights @ apart.mean(axis=1), abs=4 * error / 140)


def test_errors_hold_test_examples() -> None:
    added = examples(3, 4, 150)
    flat = np.stack([each.mean(axis=1) for each in added], axis=1)[:, :, None]  # one seed
    (error,) = Bootstrap(panel(flat, added), COUNT).errors(MEAN, np.array([[0.0, 1.0, -1.0]]))
    expected = sum((each[1] - each[2]).var() / 150 for each in added) / 16
    assert error == pytest.approx(np.sqrt(expected), rel=0.02)


def test_missing_seeds_leave_a_variance_of_those_there() -> None:
    found = scores(methods=3, tasks=2, seeds=4)
    found[0, :, 2:] = np.nan  # two seeds
    found[1, :, 1:] = np.nan  # one seed
    boot = Bootstrap(panel(found), COUNT)
    draws = boot.draws(MEAN)
    # one run is taken to vary as one of the others does, with as many seeds as any has
    borrowed = [np.mean([found[m, t, :n].var(ddof=1) for m, n in ((0, 2), (2, 4))]) for t in (0, 1)]
    expected = np.sqrt(sum(borrowed)) / 2 * t_over_z(welch(borrowed, [3, 3]))
    assert draws[:, 1].std() == pytest.approx(expected, rel=0.02)
    assert boot.caveats()[0].startswith("One seed of method 1: its noise is taken")
    alone = Bootstrap(panel(found[[1, 1], :, :1]), COUNT)  # nobody has a second
    assert alone.draws(MEAN).std(axis=0).max() < 1e-12
    assert alone.caveats()[0].startswith("One seed: the noise of seeds is not")
    for m, own in ((0, 2), (2, 4)):
        variances = [found[m, t, :own].var(ddof=1) / own / 4 for t in range(2)]
        expected = np.sqrt(sum(variances)) * t_over_z(welch(variances, [own - 1] * 2))
        assert draws[:, m].std() == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("limit", [10, bootstrap.EXACT], ids=["normal", "drawn"])
def test_examples(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(bootstrap, "EXACT", limit)
    added = examples(3, 4, 150)
    flat = np.stack([each.mean(axis=1) for each in added], axis=1)[:, :, None]  # one seed
    draws = Bootstrap(panel(flat, added, [3, 1]), COUNT).draws(MEAN)
    weights = (1 / 6, 1 / 6, 1 / 6, 1 / 2)
    expected = sum(
        w**2 * np.cov(each, ddof=0) / 150 for w, each in zip(weights, added, strict=True)
    )
    assert_covariance(draws, np.asarray(expected))
    np.testing.assert_allclose(draws.mean(axis=0), flat[:, :, 0] @ weights, atol=1e-3)


def test_lost_predictions_count_as_binomial_and_independent() -> None:
    added = examples(3, 1, 150)
    flat = added[0].mean(axis=1)[:, None, None]
    added[0][1] = np.nan
    boot = Bootstrap(panel(flat, added), COUNT)
    expected = np.cov(np.nan_to_num(added[0]), ddof=0) / 150
    mean = flat[1, 0, 0]
    expected[1] = expected[:, 1] = 0
    expected[1, 1] = mean * (1 - mean) / 150
    assert_covariance(boot.draws(MEAN), expected)
    assert boot.without_predictions() == ["method 1"]


@pytest.mark.parametrize("groups", [[6], [4, 2], [5, 1]])
def test_tasks_are_drawn_within_their_groups(groups: list[int]) -> None:
    found = np.repeat(scores(tasks=6, seeds=1), 2, axis=2)  # seeds that do not vary
    ends = np.cumsum(groups)
    parts = np.split(found[:, :, 0], ends[:-1], axis=1)
    drawn = [part for part in parts if part.shape[1] > 1]
    variances = [np.cov(part) / part.shape[1] / len(groups) ** 2 for part in drawn]
    freedom = [part.shape[1] - 1 for part in drawn]
    wide = [t_over_z(welch([each[m, m] for each in variances], freedom)) for m in range(3)]
    expected = sum(variances) * np.outer(wide, wide)
    boot = Bootstrap(panel(found, groups=groups), COUNT)
    assert_covariance(boot.draws(MEAN, over_tasks=True), np.asarray(expected))
    assert np.ptp(boot.draws(MEAN), axis=0).max() < 1e-9
    assert boot.can_draw_tasks(MEAN) and boot.can_draw_tasks("group 0")
    assert not boot.can_draw_tasks("task 0")
    assert np.ptp(boot.draws("task 0", over_tasks=True), axis=0).max() < 1e-9


def test_tasks_of_the_same_runs_share_their_seeds() -> None:
    """The luck of a run is that of all its test sets: their mean varies as one of them does."""
    found = scores(tasks=2, seeds=3)
    apart = panel(found)
    boot = Bootstrap(replace(apart, runs=(0, 0)), COUNT)
    wide = t_over_z(2)  # one run a seed, however many test sets
    assert boot.freedom(MEAN) == pytest.approx([2, 2, 2])
    assert_covariance(boot.draws(MEAN), np.cov(found.mean(axis=1)) / 3 * wide**2)
    assert (Bootstrap(apart).freedom(MEAN) > 2).all()


@pytest.mark.parametrize("limit", [10, bootstrap.EXACT], ids=["normal", "drawn"])
def test_tasks_on_the_same_test_set_share_its_examples(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(bootstrap, "EXACT", limit)
    added = examples(3, 2, 150)
    added[1] = np.where(np.arange(150) % 3 > 0, added[0], added[1])  # mostly the same errors
    flat = np.stack([each.mean(axis=1) for each in added], axis=1)[:, :, None]
    boot = Bootstrap(replace(panel(flat, added), tests=(0, 0)), COUNT)
    expected = np.cov((added[0] + added[1]) / 2, ddof=0) / 150
    assert_covariance(boot.draws(MEAN), expected)


def test_a_data_set_with_several_shots_is_drawn_as_one() -> None:
    found = np.repeat(scores(tasks=3, seeds=1), 2, axis=1)  # each task at two shots, in two groups
    found = np.repeat(found[:, [0, 2, 4, 1, 3, 5]], 2, axis=2)  # seeds that do not vary
    boot = Bootstrap(replace(panel(found, groups=[3, 3]), tests=(0, 1, 2, 0, 1, 2)), COUNT)
    expected = np.cov(found[:, :3, 0]) / 3 * t_over_z(2) ** 2  # of three tasks, not of six
    assert_covariance(boot.draws(MEAN, over_tasks=True), expected)


def test_intervals_stay_within_what_a_score_can_be() -> None:
    found = panel(np.array([[[0.02, 0.06]], [[0.93, 0.99]]]))
    low, high = Bootstrap(found).interval(MEAN)
    assert (low[0], high[1]) == (0, 1)
    low, _ = Bootstrap(replace(found, least=-1.0)).interval(MEAN)
    assert -1 <= low[0] < 0


def test_levels_are_added_up() -> None:
    added, found = examples(3, 4, 100), scores(3, 4, 3)
    whole = Bootstrap(panel(found, added), COUNT).draws(MEAN, over_tasks=True)
    seeds = Bootstrap(panel(found), COUNT).draws(MEAN, over_tasks=True)
    flat = np.repeat(found.mean(axis=2, keepdims=True), 1, axis=2)
    tests = Bootstrap(panel(flat, added), COUNT).draws(MEAN)
    assert_covariance(whole, np.cov(seeds.T) + np.cov(tests.T))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_interval_of_one_task_is_that_of_student(seeds: int) -> None:
    found = scores(tasks=1, seeds=seeds)
    low, high = Bootstrap(panel(found), 50_000).interval("task 0")
    means, error = found[:, 0].mean(axis=1), stats.sem(found[:, 0], axis=1)
    expected = stats.t.interval(0.95, seeds - 1, means, error)
    half = (expected[1] - expected[0]) / 2
    np.testing.assert_allclose((low - expected[0]) / half, 0, atol=0.03)
    np.testing.assert_allclose((high - expected[1]) / half, 0, atol=0.03)


def test_widening() -> None:
    found = widening(np.array([0, 1, 10, 1000]))
    assert found[0] == 1
    expected = [t_over_z(freedom) for freedom in (1, 10, 1000)]
    assert found[1:] == pytest.approx(expected) and expected[0] == pytest.approx(
        12.706 / 1.95996, rel=1e-4
    )


def test_freedom_of_unequal_variances() -> None:
    """The one of a difference of two means, which SciPy has as Welch's t test."""
    rng = np.random.default_rng(4)
    a, b = rng.normal(0, 1, 4), rng.normal(0, 3, 4)
    found = Bootstrap(panel(np.stack([a, b])[None])).freedom(MEAN)
    assert found == pytest.approx([stats.ttest_ind(a, b, equal_var=False).df])
    assert Bootstrap(panel(np.ones((2, 3, 4)))).freedom(MEAN).tolist() == [0, 0]


def test_the_same_whatever_else_is_drawn(tmp_path: Path) -> None:
    found = synthetic.records(4, 5, 2)
    results = synthetic.results(found, synthetic.write(tmp_path, found))
    one, two = (Bootstrap(panels.of(results), 500) for _ in range(2))
    two.draws("mean of tasks", over_tasks=True)
    np.testing.assert_array_equal(one.draws(MEAN), two.draws(MEAN))
    np.testing.assert_array_equal(one.interval(MEAN), two.interval(MEAN))
    other = Bootstrap(panels.of(results), 500, seed=1)
    assert (other.draws(MEAN) != one.draws(MEAN)).all()
    part = Bootstrap(panels.of(results, one.panel.methods[1:3]), 500)
    assert np.corrcoef(part.draws(MEAN)[:, 0], one.draws(MEAN)[:, 1])[0, 1] > 0.5  # same draws


# --- how often intervals hold the truth: 0.95 is promised; the seeds of these tests are fixed


def coverage(
    make: Callable[[np.random.Generator], tuple[Array, list[Array] | None, Array | float]],
    repeats: int,
    over_tasks: bool = False,
) -> float:
    held = []
    for i in range(repeats):
        found, added, truth = make(np.random.default_rng(i))
        boot = Bootstrap(panel(found, added), 1000, seed=i)
        low, high = boot.interval(MEAN, over_tasks)
        held.append((low <= truth) & (truth <= high))
    return float(np.mean(held))


@pytest.mark.parametrize("tasks", [1, 5, 19])
@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_coverage_over_seeds(seeds: int, tasks: int) -> None:
    def make(rng: np.random.Generator) -> tuple[Array, None, Array]:
        truth = rng.uniform(0.3, 0.9, (30, tasks, 1))
        noise = 0.01 * rng.lognormal(0, 1, (30, tasks, 1))  # as unequal as tasks are
        return rng.normal(truth, noise, (30, tasks, seeds)), None, truth.mean(axis=(1, 2))

    assert 0.93 <= coverage(make, 50) <= 0.985


@pytest.mark.parametrize("tasks", [5, 19])
def test_coverage_over_tasks(tasks: int) -> None:
    def make(rng: np.random.Generator) -> tuple[Array, None, float]:
        of_tasks = rng.normal(0.7, 0.05, (30, tasks, 1))
        return rng.normal(of_tasks, 0.005, (30, tasks, 3)), None, 0.7

    assert 0.93 <= coverage(make, 50, over_tasks=True) <= 0.98


@pytest.mark.parametrize(("seeds", "least", "most"), [(1, 0.92, 0.97), (3, 0.94, 1.0)])
def test_coverage_over_examples(seeds: int, least: float, most: float) -> None:
    """Of the accuracy on endless test examples; some of their noise counts twice with seeds."""

    def make(rng: np.random.Generator) -> tuple[Array, list[Array], float]:
        right = []
        for _ in range(2):
            hard = rng.normal(size=200)
            right.append(hard + rng.normal(0, 0.5, (seeds, 20, 200)) < 0.8)
        found = np.stack([each.mean(axis=2).T for each in right], axis=1)
        truth = stats.norm.cdf(0.8 / np.sqrt(1 + 0.25))
        return found, [each.mean(axis=0) for each in right], float(truth)

    assert least <= coverage(make, 100) <= most
