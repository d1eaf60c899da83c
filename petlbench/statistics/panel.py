"""The scores of a comparison as arrays: methods x tasks x seeds, and what examples add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from petlbench.errors import UsageError
from petlbench.leaderboard import Row, metric_of, value
from petlbench.metrics import LEAST
from petlbench.results import Results
from petlbench.statistics.examples import contributions

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Column:
    """A mean over parts of each part's mean over its tasks; a part is indices of tasks."""

    name: str
    parts: tuple[tuple[int, ...], ...]

    def weights(self, tasks: int) -> Array:
        """(tasks,), of sum 1."""
        found = np.zeros(tasks)
        for part in self.parts:
            found[list(part)] += 1 / len(part) / len(self.parts)
        return found


@dataclass(frozen=True)
class Panel:
    """Some methods of one board on some of its tasks."""

    methods: tuple[str, ...]
    groups: tuple[tuple[str, tuple[str, ...]], ...]  # (group, its tasks)
    seeds: tuple[int, ...]
    ranking: str  # the name of a column: what ranks
    scores: Array  # (methods, tasks, seeds), fractions; NaN where not run
    totals: Array  # (tasks,) test examples
    runs: tuple[int, ...]  # of each task: the first task that was measured by the same runs,
    tests: tuple[int, ...]  # on the same test set
    load: Callable[[str], Array]  # see `examples`
    least: float = 0.0  # that a score can be; 1 is the most

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(task for _, members in self.groups for task in members)

    @cached_property
    def columns(self) -> dict[str, Column]:
        """By name: "mean of groups", "mean of tasks", the groups, the tasks."""
        place = {task: i for i, task in enumerate(self.tasks)}
        groups = {group: tuple(place[t] for t in members) for group, members in self.groups}
        parts = {
            **{task: ((i,),) for task, i in place.items()},
            **{group: (members,) for group, members in groups.items()},
            "mean of tasks": (tuple(place.values()),),
            "mean of groups": tuple(groups.values()),
        }
        return {name: Column(name, each) for name, each in parts.items()}

    @property
    def means(self) -> Array:
        """(methods, tasks), over seeds."""
        return np.asarray(np.nanmean(self.scores, axis=2))

    def clip(self, scores: Array) -> Array:
        """Within what a score can be."""
        return scores.clip(self.least, 1)

    def examples(self, task: str) -> Array:
        """(methods, examples): what each test example adds to the score, mean over seeds.

        NaN in the row of a method whose predictions are not kept; (methods, 0) if no method's are.
        """
        return self.load(task)

    def mean(self, column: str) -> Array:
        """(methods,): that column."""
        return self.means @ self.columns[column].weights(len(self.tasks))


def of(
    results: Results,
    methods: Sequence[str] | None = None,
    tasks: Iterable[str] | None = None,
) -> Panel:
    """The panel of these methods (None: every ranked row), on these tasks (None: all).

    Methods are names of rows. A cell that was not run is NaN. UsageError, when examples are read,
    for predictions that do not give the score in their record.
    """
    board = results.board
    names = [row.method for row in board.rows if row.rank] if methods is None else list(methods)
    by_name = {row.method: row for row in board.rows}
    rows = [by_name[name] for name in names]
    chosen = set(board.tasks if tasks is None else tasks)
    groups = {group: [t for t in members if t in chosen] for group, members in board.groups.items()}
    kept = tuple((group, tuple(members)) for group, members in groups.items() if members)
    order = [task for _, members in kept for task in members]
    scores = np.full((len(rows), len(order), len(board.seeds)), np.nan)
    totals = np.zeros(len(order))
    tests = [""] * len(order)
    least = 0.0
    for m, row in enumerate(rows):
        for t, task in enumerate(order):
            for key in row.runs[task]:
                record = results.cell(key, task)
                s = board.seeds.index(record["spec"]["seed"])
                scores[m, t, s] = value(record, board.metric)
                least = min(least, LEAST.get(metric_of(record, board.metric), 0.0))
                totals[t], tests[t] = record["test"]["total"], record["data"]["test"]

    def load(task: str) -> Array:
        found = [_examples(results, row, task) for row in rows]
        count = max((len(each) for each in found if each is not None), default=0)
        return np.stack([np.full(count, np.nan) if each is None else each for each in found])

    runs = [tuple(row.runs[task] for row in rows) for task in order]
    return Panel(
        methods=tuple(names),
        groups=kept,
        seeds=board.seeds,
        ranking=board.ranking,
        scores=scores,
        totals=totals,
        runs=tuple(runs.index(each) for each in runs),
        tests=tuple(tests.index(each) for each in tests),
        load=load,
        least=least,
    )


def _examples(results: Results, row: Row, task: str) -> Array | None:
    """(examples,): the mean over seeds; None unless the predictions of all of them are kept."""
    unit, keys = results.board.metric, row.runs[task]
    total: Array | float = 0.0
    for key in keys:
        record, arrays = results.cell(key, task), results.predictions(key, task)
        metric = metric_of(record, unit)
        added = None if arrays is None else contributions(arrays, metric)
        if added is None:
            return None
        if abs(added.mean() - value(record, unit)) > 1e-6:
            raise UsageError(
                f"the predictions of run {key} give {metric} {added.mean():.4f} and its record "
                f"says {value(record, unit):.4f}: one of the two was edited. Move the files of "
                f"this run out of {results.store.folder}, then run it again."
            )
        total = total + added / len(keys)
    return None if not keys else np.asarray(total, dtype=float)
