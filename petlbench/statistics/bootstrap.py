"""Where means would lie, were seeds, test examples and tasks drawn again.

A hierarchical bootstrap in three levels, shared by all methods, so that differences between
methods are paired:

- *test examples* of every task are drawn with replacement, on the mean over seeds;
- *seeds* of every task, and *tasks* within each part of a mean (a group, or all), are too few for
  that: two seeds have three draws. Their deviations from their mean are multiplied with normal
  numbers instead (multiplier bootstrap; van der Vaart and Wellner 1996, sec. 2.9), of the variance
  that makes the one of the mean unbiased, s^2 / n.

Tasks that share runs (several test sets of one run) share the draws of seeds, tasks that share a
test set (the shots of a data set) those of its examples, and count as one where tasks are drawn.

The levels are added up, which takes some noise of seeds into the levels above a second time:
intervals are rather too wide than too narrow. A variance that comes from few seeds or tasks is
itself uncertain, so the deviations of these levels are widened by Student's t over the normal
quantile. Tasks vary unequally: their degrees of freedom together are those of Welch and
Satterthwaite.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from petlbench.statistics import LEVEL
from petlbench.statistics.panel import Array, Column, Panel

COUNT = 10_000  # resamples
# Up to so many examples are drawn themselves; a mean of more is normal for all that can be seen,
# with the covariance of the methods.
EXACT = 1_000


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of a panel; the same seed gives the same ones."""

    panel: Panel
    count: int = COUNT
    seed: int = 0

    def draws(self, column: str, over_tasks: bool = False, of: Array | None = None) -> Array:
        """(count, methods): resampled values of a column of the panel; tasks drawn too if asked.

        `of` (questions, methods) asks for combinations of methods instead, such as differences
        (1, -1): (count, questions). Each is widened by degrees of freedom of its own.
        """
        column_, asked = self.panel.columns[column], self._asked(of)
        weights = column_.weights(len(self.panel.tasks))
        wider = widening(self._noise_of_seeds(column_, asked)[1])
        moved = (_weighed(self._seeds, weights) @ asked.T) * wider
        moved += _weighed(self._examples[0], weights) @ asked.T
        if over_tasks:
            wider = widening(self._noise_of_tasks(column_, asked)[1])
            moved += (self._tasks(column_) @ asked.T) * wider
        return np.asarray(self.panel.mean(column) @ asked.T + moved, dtype=float)

    def errors(self, column: str, of: Array, over_tasks: bool = False, at_once: int = 1) -> Array:
        """(questions,): standard errors of combinations of methods, `of` as in `draws`.

        `at_once`: how many questions are asked with one probability of error. The more, the
        farther out they look, and the more a variance from few seeds or tasks must be widened.
        """
        column_ = self.panel.columns[column]
        over_seeds, freedom = self._noise_of_seeds(column_, of)
        moved = _weighed(self._examples[0], column_.weights(len(self.panel.tasks)))
        over_examples = ((of @ (moved.T @ moved / self.count)) * of).sum(axis=1)
        found = over_seeds * widening(freedom, at_once) ** 2 + over_examples
        if over_tasks:
            noise, freedom = self._noise_of_tasks(column_, of)
            found = found + noise * widening(freedom, at_once) ** 2
        return np.sqrt(np.where(found > 1e-15, found, 0.0))  # what is left of rounding is none

    def interval(self, column: str, over_tasks: bool = False) -> Array:
        """(2, methods): low and high of the 95% interval, within what a score can be."""
        return self.panel.clip(percentiles(self.draws(column, over_tasks)))

    def freedom(self, column: str, of: Array | None = None) -> Array:
        """(questions,): degrees of freedom of the noise of seeds, `of` as in `draws`."""
        return self._noise_of_seeds(self.panel.columns[column], self._asked(of))[1]

    def can_draw_tasks(self, column: str) -> bool:
        """Whether some part of that mean has two tasks."""
        return any(len(part) > 1 for part in self.panel.columns[column].parts)

    def without_predictions(self) -> list[str]:
        """Methods whose test examples are not all known one by one."""
        known = self._examples[1]
        return [method for m, method in enumerate(self.panel.methods) if not known[m].all()]

    def caveats(self) -> list[str]:
        """What is not in the intervals, or not as it is; a sentence each."""
        told = []
        if len(self.panel.seeds) == 1:
            told.append("One seed: the noise of seeds is not in the intervals.")
        lone = (self._borrowed > 0).any(axis=1)
        if lone.any():
            names = ", ".join(np.array(self.panel.methods)[lone])
            told.append(f"One seed of {names}: its noise is taken to be that of the other methods.")
        if missing := self.without_predictions():
            every = len(missing) == len(self.panel.methods)
            told.append(
                f"Predictions are not kept of {'any method' if every else ', '.join(missing)}, or "
                "do not tell this metric: test examples count as binomial (which is too certain "
                "for an area under a curve), and as independent between methods, which makes "
                "differences look less certain."
            )
        return told

    def _rng(self, *what: int) -> np.random.Generator:
        """Each level of each task has numbers of its own, whatever else is drawn."""
        return np.random.default_rng([self.seed, *what])

    @cached_property
    def _errors(self) -> Array:
        """(methods, tasks, seeds): deviations of seeds; their squares add up to s^2 / n."""
        scores = self.panel.scores
        own = (~np.isnan(scores)).sum(axis=2, keepdims=True)
        centred = np.nan_to_num(scores - self.panel.means[:, :, None])  # 0 where not run
        return np.asarray(centred / np.sqrt(np.maximum(own * (own - 1), 1)))

    @cached_property
    def _borrowed(self) -> Array:
        """(methods, tasks): standard deviation of a run, where a method has but one seed.

        From the variances of the methods with more; 0 where there is no such, or no need.
        """
        own = (~np.isnan(self.panel.scores)).sum(axis=2)
        variances = (self._errors**2).sum(axis=2) * own  # of a run, 0 of a lone one
        mean = variances.sum(axis=0) / np.maximum((own > 1).sum(axis=0), 1)
        return np.sqrt(np.where(own == 1, mean, 0.0))

    @cached_property
    def _seeds(self) -> NDArray[np.float32]:
        """(tasks, count, methods): deviations of means over seeds."""
        methods, tasks, seeds = self.panel.scores.shape
        found = np.empty((tasks, self.count, methods), dtype=np.float32)
        for t in range(tasks):
            drawn = self._rng(1, self.panel.runs[t]).standard_normal((self.count, seeds))
            found[t] = drawn @ self._errors[:, t].T
            if self._borrowed[:, t].any():
                lone = self._rng(4, self.panel.runs[t]).standard_normal((self.count, methods))
                found[t] += lone * self._borrowed[:, t]
        return found

    @cached_property
    def _examples(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(tasks, count, methods): deviations of means over test examples.

        And (methods, tasks): whether they come from the examples themselves.
        """
        methods, tasks, _ = self.panel.scores.shape
        found = np.empty((tasks, self.count, methods), dtype=np.float32)
        known = np.empty((methods, tasks), dtype=bool)
        for test in sorted(set(self.panel.tests)):
            rng = self._rng(2, test)
            same = [t for t in range(tasks) if self.panel.tests[t] == test]
            added = [self.panel.examples(self.panel.tasks[t]) for t in same]
            kept = [~np.isnan(each).any(axis=1) & (each.shape[1] > 0) for each in added]
            known[:, same] = np.stack(kept, axis=1)
            rows = [each[these] for each, these in zip(added, kept, strict=True) if these.any()]
            none = np.empty((self.count, 0))
            moved = _resample(np.concatenate(rows), self.count, rng) if rows else none
            for t, these in zip(same, kept, strict=True):
                found[t][:, these], moved = np.split(moved, [these.sum()], axis=1)
                # A mean of numbers in [0, 1] varies at most as a binomial one; nothing tells how
                # two methods go together, so they are taken for independent.
                mean = self.panel.means[~these, t]
                sd = np.sqrt(np.clip(mean * (1 - mean), 0, None) / self.panel.totals[t])
                found[t][:, ~these] = rng.standard_normal((self.count, len(mean))) * sd
        return found, known

    def _tasks(self, column: Column) -> Array:
        """(count, methods): deviations of a column when tasks are drawn within its parts."""
        moved = np.zeros((self.count, len(self.panel.methods)))
        for sets, errors in self._errors_of_tasks(column).items():
            drawn = [self._rng(3, test).standard_normal(self.count) for test in sets]
            moved += np.stack(drawn, axis=1) @ errors.T
        return moved

    def _asked(self, of: Array | None) -> Array:
        return np.eye(len(self.panel.methods)) if of is None else of

    def _noise_of_seeds(self, column: Column, of: Array) -> tuple[Array, Array]:
        """Variances (questions,) of combinations of methods, and their degrees of freedom."""
        weights = column.weights(len(self.panel.tasks))
        apart = sorted(set(self.panel.runs))
        of_runs = np.equal.outer(apart, self.panel.runs) * weights  # (runs, tasks)
        errors = np.einsum("rt,mts->mrs", of_runs, self._errors)
        borrowed = self._borrowed @ of_runs.T
        variances = (np.tensordot(of, errors, 1) ** 2).sum(axis=2) + of**2 @ borrowed**2
        seeds = (~np.isnan(self.panel.scores)).sum(axis=2)
        seeds = np.where(self._borrowed > 0, seeds.max(axis=0), seeds)[:, apart]
        fewest = [np.where(of != 0, each, np.inf).min(axis=1) for each in seeds.T]
        return variances.sum(axis=1), satterthwaite(variances, np.stack(fewest, axis=1) - 1)

    def _noise_of_tasks(self, column: Column, of: Array) -> tuple[Array, Array]:
        """The same of tasks that are drawn within the parts of a column."""
        errors = self._errors_of_tasks(column)
        if not errors:
            return np.zeros(len(of)), np.zeros(len(of))
        variances = np.stack([((of @ each) ** 2).sum(axis=1) for each in errors.values()], axis=1)
        sizes = np.array([len(sets) for sets in errors])
        return variances.sum(axis=1), satterthwaite(variances, sizes - 1)

    def _errors_of_tasks(self, column: Column) -> dict[tuple[int, ...], Array]:
        """Test sets -> (methods, test sets): deviations of tasks, of all parts that have these.

        Their squares add up to the variance of the column.
        """
        found: dict[tuple[int, ...], Array] = {}
        for part in column.parts:
            size = len(part)
            if size > 1:
                values = self.panel.means[:, part]
                centred = values - values.mean(axis=1, keepdims=True)
                errors = centred / np.sqrt(size * (size - 1)) / len(column.parts)
                sets = tuple(self.panel.tests[task] for task in part)
                found[sets] = found.get(sets, 0) + errors
        return found


def percentiles(draws: Array) -> Array:
    """(2, ...): low and high of the 95% percentile interval of resamples (count, ...)."""
    tail = (1 - LEVEL) / 2
    return np.asarray(np.quantile(draws, [tail, 1 - tail], axis=0))


def satterthwaite(variances: Array, freedom: NDArray[Any]) -> Array:
    """(M,): degrees of freedom of sums of T independent variances (M, T), 0 if all of them are.

    Satterthwaite 1946 (Biometrics Bulletin 2), of variances with `freedom` (T,) or (M, T) each.
    """
    each = np.divide(variances**2, freedom, out=np.zeros_like(variances), where=freedom > 0)
    total, parts = variances.sum(axis=1) ** 2, each.sum(axis=1)
    return np.asarray(np.divide(total, parts, out=np.zeros_like(total), where=parts > 0))


def _weighed(deviations: NDArray[np.float32], weights: Array) -> Array:
    """(count, methods): the sum over tasks; most means are of few of them."""
    used = np.flatnonzero(weights)
    return np.tensordot(weights[used], deviations[used], axes=1)


def widening(freedom: NDArray[Any], at_once: int = 1) -> Array:
    """Student's t over the normal quantile; 1 where there is nothing to widen."""
    tail = 1 - (1 - LEVEL) / 2 / max(at_once, 1)
    return np.where(freedom > 0, stdtrit(np.maximum(freedom, 1), tail) / ndtri(tail), 1.0)


def _resample(added: Array, count: int, rng: np.random.Generator) -> Array:
    """(count, methods): how far means move when the examples of `added` (methods, n) are drawn."""
    methods, n = added.shape
    centred = added - added.mean(axis=1, keepdims=True)
    if n > EXACT:
        values, vectors = np.linalg.eigh(centred @ centred.T / n**2)
        root = vectors * np.sqrt(values.clip(0))
        return np.asarray(rng.standard_normal((count, methods)) @ root.T)
    drawn = rng.integers(n, size=(count, n)) + n * np.arange(count)[:, None]
    times = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
    return np.asarray(times.astype(np.float32) @ centred.T.astype(np.float32) / n)
