"""Where means would lie, were seeds, test examples and tasks drawn again.

A hierarchical bootstrap in three levels, all drawn with replacement and shared by all methods, so
that differences between methods are paired:

- *seeds* of every task on their own, S - 1 of S;
- *test examples* of every task, on the mean over seeds;
- *tasks* within each part of a mean (a group, or all), n - 1 of n.

Drawing one fewer makes the variance of a mean unbiased (Rao and Wu 1988, JASA 83, sec. 2). The
levels are added up, which takes some noise of seeds into the levels above a second time: intervals
are rather too wide than too narrow. Few seeds and few tasks are too few for a percentile, so the
deviations of these levels are widened by Student's t over the normal quantile, by the degrees of
freedom that the seeds of a mean's tasks, or its tasks, have together.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

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

    def draws(self, column: str, over_tasks: bool = False) -> Array:
        """(count, methods): resampled values of a column of the panel; tasks drawn too if asked."""
        column_ = self.panel.columns[column]
        weights = column_.weights(len(self.panel.tasks))
        moved = (self._seeds @ weights) * self._wider(column_) + self._examples[0] @ weights
        if over_tasks:
            moved += self._tasks(column_)
        return np.asarray(self.panel.mean(column) + moved, dtype=float)

    def interval(self, column: str, over_tasks: bool = False) -> Array:
        """(2, methods): low and high of the 95% interval."""
        tail = (1 - LEVEL) / 2
        return np.quantile(self.draws(column, over_tasks), [tail, 1 - tail], axis=0)

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
    def _seeds(self) -> NDArray[np.float32]:
        """(count, methods, tasks): deviations of means over seeds."""
        scores = self.panel.scores
        methods, tasks, seeds = scores.shape
        there = ~np.isnan(scores)
        found = np.zeros((self.count, methods, tasks), dtype=np.float32)
        for t in range(tasks if seeds > 1 else 0):
            drawn = self._rng(1, t).multinomial(seeds - 1, np.full(seeds, 1 / seeds), self.count)
            weight = drawn @ there[:, t].T.astype(float)  # of a method's own seeds
            total = drawn @ np.where(there[:, t], scores[:, t], 0).T
            mean = np.divide(total, weight, where=weight > 0, out=np.zeros_like(total))
            found[:, :, t] = np.where(weight > 0, mean - self.panel.means[:, t], 0)
        return found

    @cached_property
    def _examples(self) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(count, methods, tasks): deviations of means over test examples.

        And (methods, tasks): whether they come from the examples themselves.
        """
        methods, tasks, _ = self.panel.scores.shape
        found = np.empty((self.count, methods, tasks), dtype=np.float32)
        known = np.empty((methods, tasks), dtype=bool)
        for t, task in enumerate(self.panel.tasks):
            added = self.panel.examples(task)
            rng = self._rng(2, t)
            known[:, t] = kept = ~np.isnan(added).any(axis=1) & (added.shape[1] > 0)
            if kept.any():
                found[:, kept, t] = _resample(added[kept], self.count, rng)
            # A mean of numbers in [0, 1] varies at most as a binomial one; nothing tells how two
            # methods go together, so they are taken for independent.
            mean = self.panel.means[~kept, t]
            sd = np.sqrt(np.clip(mean * (1 - mean), 0, None) / self.panel.totals[t])
            found[:, ~kept, t] = rng.standard_normal((self.count, len(mean))) * sd
        return found, known

    def _tasks(self, column: Column) -> Array:
        """(count, methods): deviations of a column when tasks are drawn within its parts."""
        moved = np.zeros((self.count, len(self.panel.methods)))
        freedom = sum(len(part) - 1 for part in column.parts)
        for i, part in enumerate(column.parts):
            size = len(part)
            if size > 1:
                each = np.full(size, 1 / size)
                drawn = self._rng(3, i).multinomial(size - 1, each, self.count) / (size - 1)
                moved += (drawn - 1 / size) @ self.panel.means[:, part].T / len(column.parts)
        return moved * _wider(np.array(freedom))

    def _wider(self, column: Column) -> Array:
        """(methods,): by how much deviations over seeds are widened."""
        tasks = column.weights(len(self.panel.tasks)) > 0
        seeds = (~np.isnan(self.panel.scores)).sum(axis=2)[:, tasks]
        return _wider((seeds - 1).clip(0).sum(axis=1))


def _wider(freedom: NDArray[np.int64]) -> Array:
    """Student's t over the normal quantile; 1 where there is nothing to widen."""
    tail = (1 + LEVEL) / 2
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
