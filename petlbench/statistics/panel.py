"""The scores of a comparison as arrays: methods x tasks x seeds, and what examples add to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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
    # task -> of each method, place of a seed -> (examples,): what each test example adds to the
    # score of that run; empty for a method unless the predictions of all of its runs are kept
    load: Callable[[str], Sequence[Mapping[int, Array]]]
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
        added = self.load(task)
        means = [{0: np.mean(list(each.values()), axis=0)} if each else {} for each in added]
        return _filled(means, 1)[:, 0]

    def examples_of_runs(self, task: str) -> Array:
        """(methods, seeds, examples): likewise of each run, NaN where there is none."""
        return _filled(self.load(task), len(self.seeds))

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

    def load(task: str) -> list[dict[int, Array]]:
        order: dict[str, bytes] = {}
        return [_examples(results, row, task, order) for row in rows]

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


def _examples(results: Results, row: Row, task: str, order: dict[str, bytes]) -> dict[int, Array]:
    """Of one method, see `Panel.load`. `order`: a run of the task, and its test set's labels."""
    unit, found = results.board.metric, {}
    for key in row.runs[task]:
        record, arrays = results.cell(key, task), results.predictions(key, task)
        metric = metric_of(record, unit)
        if arrays is None:
            return {}
        _require_order(order, key, task, arrays, results)
        added = contributions(arrays, metric)
        if added is None:
            return {}
        if abs(added.mean() - value(record, unit)) > 1e-6:
            raise UsageError(
                f"the predictions of run {key} give {metric} {added.mean():.4f} and its record "
                f"says {value(record, unit):.4f}: one of the two was edited. Move the files of "
                f"this run out of {results.store.folder}, then run it again."
            )
        found[results.board.seeds.index(record["spec"]["seed"])] = added
    return found


def _require_order(
    order: dict[str, bytes],
    key: str,
    task: str,
    arrays: Mapping[str, NDArray[Any]],
    results: Results,
) -> None:
    """Runs are compared example by example: all must have the same ones, in the same order."""
    told = next((arrays[name] for name in ("labels", "image_of_text") if name in arrays), None)
    if told is None:
        return
    first, known = next(iter(order.items()), (key, told.tobytes()))
    order[first] = known
    if told.tobytes() != known:
        raise UsageError(
            f"the predictions of the runs {first} and {key} are of other test examples of {task}, "
            "or of the same in another order: the file of one of them was edited. Move the files "
            f"of that run out of {results.store.folder}, then run it again."
        )


def _filled(added: Sequence[Mapping[int, Array]], seeds: int) -> Array:
    """(methods, seeds, examples) of what `Panel.load` gives; NaN elsewhere."""
    count = max((len(each) for by_seed in added for each in by_seed.values()), default=0)
    found = np.full((len(added), seeds, count), np.nan)
    for m, by_seed in enumerate(added):
        for s, each in by_seed.items():
            found[m, s] = each
    return found
