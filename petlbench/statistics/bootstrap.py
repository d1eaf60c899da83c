"""Where means would lie, were seeds, test examples and tasks drawn again.

A hierarchical bootstrap in three levels, shared by all methods, so that differences between
methods are paired:

- *test examples* of every task are drawn with replacement, on the mean over seeds;
- *seeds* of every task, and *tasks* within each part of a mean (a group, or all), are too few for
  that: two seeds have three draws. Their deviations from their mean are multiplied with normal
  numbers instead (multiplier bootstrap; van der Vaart and Wellner 1996, sec. 2.9), of the variance
  that makes the one of the mean unbiased, s^2 / n.

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

from petlbench.statistics.panel import Array, Column, Panel

LEVEL = 0.95
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

    def draws(self, column: str, over_tasks: bool = False, at_once: int = 1) -> Array:
        """(count, methods): resampled values of a column of the panel; tasks drawn too if asked.

        `at_once`: how many questions are asked of them with one probability of error; the more,
        the farther out they look, and the more a variance from few seeds must be widened.
        """
        column_ = self.panel.columns[column]
        weights = column_.weights(len(self.panel.tasks))
        wider = widening(self.freedom(column), at_once)
        moved = _weighed(self._seeds, weights) * wider + _weighed(self._examples[0], weights)
        if over_tasks:
            moved += self._tasks(column_) * widening(self._freedom_of_tasks(column_), at_once)
        return np.asarray(self.panel.mean(column) + moved, dtype=float)

    def interval(self, column: str, over_tasks: bool = False) -> Array:
        """(2, methods): low and high of the 95% interval."""
        tail = (1 - LEVEL) / 2
        return np.quantile(self.draws(column, over_tasks), [tail, 1 - tail], axis=0)

    def freedom(self, column: str) -> Array:
        """(methods,): degrees of freedom of the noise of seeds in a column."""
        weights = self.panel.columns[column].weights(len(self.panel.tasks))
        variances = weights**2 * (self._errors**2).sum(axis=2)
        return satterthwaite(variances, (~np.isnan(self.panel.scores)).sum(axis=2) - 1)

    def can_draw_tasks(self, column: str) -> bool:
        """Whether some part of that mean has two tasks."""
        return any(len(part) > 1 for part in self.panel.columns[column].parts)

    def without_predictions(self) -> list[str]:
        """Methods whose test examples are not all known one by one."""
        known = self._examples[1]
        return [method for m, method in enumerate(self.panel.methods) if not known[m].all()]

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
    def _seeds(self) -> NDArray[np.float32]:
        """(tasks, count, methods): deviations of means over seeds."""
        methods, tasks, seeds = self.panel.scores.shape
        found = np.empty((tasks, self.count, methods), dtype=np.float32)
        for t in range(tasks):
            drawn = self._rng(1, t).standard_normal((self.count, seeds))
            found[t] = drawn @ self._errors[:, t].T
        return found

    @cached_property
    def _examples(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(tasks, count, methods): deviations of means over test examples.

        And (methods, tasks): whether they come from the examples themselves.
        """
        methods, tasks, _ = self.panel.scores.shape
        found = np.empty((tasks, self.count, methods), dtype=np.float32)
        known = np.empty((methods, tasks), dtype=bool)
        for t, task in enumerate(self.panel.tasks):
            added = self.panel.examples(task)
            rng = self._rng(2, t)
            known[:, t] = kept = ~np.isnan(added).any(axis=1) & (added.shape[1] > 0)
            if kept.any():
                found[t][:, kept] = _resample(added[kept], self.count, rng)
            # A mean of numbers in [0, 1] varies at most as a binomial one; nothing tells how two
            # methods go together, so they are taken for independent.
            mean = self.panel.means[~kept, t]
            sd = np.sqrt(np.clip(mean * (1 - mean), 0, None) / self.panel.totals[t])
            found[t][:, ~kept] = rng.standard_normal((self.count, len(mean))) * sd
        return found, known

    def _tasks(self, column: Column) -> Array:
        """(count, methods): deviations of a column when tasks are drawn within its parts."""
        moved = np.zeros((self.count, len(self.panel.methods)))
        for i, part in enumerate(column.parts):
            size = len(part)
            if size > 1:
                values = self.panel.means[:, part]
                centred = values - values.mean(axis=1, keepdims=True)
                drawn = self._rng(3, i).standard_normal((self.count, size))
                moved += drawn @ centred.T / np.sqrt(size * (size - 1)) / len(column.parts)
        return moved

    def _freedom_of_tasks(self, column: Column) -> Array:
        """(methods,): that of `_tasks`."""
        parts = [part for part in column.parts if len(part) > 1]
        if not parts:
            return np.zeros(len(self.panel.methods))
        sizes = np.array([len(part) for part in parts])
        variances = [self.panel.means[:, part].var(axis=1, ddof=1) for part in parts]
        return satterthwaite(np.stack(variances, axis=1) / sizes, sizes - 1)


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
