"""Is one method better than another, by how much, for which cost; how do several differ?

    (comparison,), problems = petlbench.results.load("results/mini")
    petlbench.compare.two(comparison, "convpass", "lora").conclusion
    petlbench.compare.many(comparison).letters

Methods are compared on the same tasks only, and two of them on the same seeds. What is said of
*these tasks* takes them as they are; what is said of *tasks like these* takes them for a sample.
Scores and differences are fractions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench import leaderboard, verdict
from petlbench.errors import UsageError, unknown
from petlbench.leaderboard import Leaderboard, Row
from petlbench.results import Results
from petlbench.statistics import LEVEL, paired, ties
from petlbench.statistics import agreement as agreements
from petlbench.statistics import many as rank_tests
from petlbench.statistics import panel as panels
from petlbench.statistics.agreement import Agreement
from petlbench.statistics.bootstrap import Bootstrap, percentiles
from petlbench.statistics.many import Friedman
from petlbench.statistics.paired import Difference, Improvement, McNemar, Wilcoxon
from petlbench.statistics.panel import Panel


@dataclass(frozen=True)
class OnTask:
    """Two methods on one task: means over seeds, and what tells them apart."""

    task: str
    a: float
    b: float
    difference: Difference
    mcnemar: McNemar | None  # of accuracy with one seed whose predictions are kept
    agreement: Agreement | None  # where the predicted classes of both are kept


@dataclass(frozen=True)
class Two:
    """Two methods: a - b on every task and over tasks. `board` has their rows and costs."""

    board: Leaderboard
    a: str
    b: str
    column: str  # the mean that ranks
    seeds: tuple[int, ...]  # of both
    tasks: tuple[OnTask, ...]
    here: Difference  # of the column, on these tasks
    like_these: Difference | None  # on tasks like these; None where nothing tells
    wilcoxon: Wilcoxon | None  # over tasks; None if they are taken as they are, or there is one
    improvement: Improvement
    counted: tuple[str, ...]  # methods whose test examples are known as counts alone
    notes: tuple[str, ...]

    @property
    def conclusion(self) -> str:
        """One sentence to quote."""
        return verdict.of_two(self)


@dataclass(frozen=True)
class Ranks:
    """Rank tests over tasks."""

    average: tuple[float, ...]
    critical_difference: float  # of average ranks, at 0.05
    friedman: Friedman
    p_values: tuple[tuple[float, ...], ...]  # of pairs: signed-rank test, adjusted by Holm


@dataclass(frozen=True)
class Many:
    """Three or more methods, the best first; matrices are rows of rows, in that order."""

    board: Leaderboard
    methods: tuple[str, ...]
    column: str  # the mean that ranks
    means: tuple[float, ...]
    intervals: tuple[tuple[float, float], ...]  # 95%, on these tasks
    letters: tuple[str, ...]  # methods that share one cannot be told apart on these tasks
    letters_like_these: tuple[str, ...] | None  # on tasks like these; None where nothing tells
    ranks: Ranks | None  # None if tasks are taken as they are, or there is one
    counted: tuple[str, ...]  # methods whose test examples are known as counts alone
    notes: tuple[str, ...]

    @property
    def conclusion(self) -> str:
        """One sentence to quote."""
        return verdict.of_many(self)


def two(
    results: Results, a: str, b: str, common_tasks: bool = False, fixed_tasks: bool = False
) -> Two:
    """Compare two rows of a board, by their names.

    Args:
        common_tasks: Only on the tasks that both finished, where they differ.
        fixed_tasks: Say nothing of other tasks.

    Raises:
        UsageError: Unknown names; different tasks without `common_tasks`; no seed or task in
            common; predictions that cannot be read or do not belong to their records.
    """
    if a == b:
        raise UsageError(f"{a} is compared with itself: name another method.")
    both, told = _restrict(results, [a, b], common_tasks)
    both, of_seeds = _same_seeds(both)
    panel = panels.of(both, [a, b])
    column = _column(panel, results.board.ranking)
    boot = Bootstrap(panel)
    counted = tuple(boot.without_predictions())
    tasks = tuple(_on_task(both, panel, t) for t in range(len(panel.tasks)))
    differences = panel.means[0] - panel.means[1]
    several = len(tasks) > 1
    wilcoxon = paired.wilcoxon(differences) if several and not fixed_tasks else None
    over_tasks = not fixed_tasks and boot.can_draw_tasks(column)
    return Two(
        board=both.board,
        a=a,
        b=b,
        column=column,
        seeds=both.board.seeds,
        tasks=tasks,
        # of one task as the table has it, in closed form
        here=_resampled(boot, column, False) if several else tasks[0].difference,
        like_these=_resampled(boot, column, True) if over_tasks else None,
        wilcoxon=wilcoxon,
        improvement=paired.probability_of_improvement(panel.scores[0], panel.scores[1]),
        counted=counted,
        notes=(
            *told,
            *of_seeds,
            *_weak(wilcoxon),
            *_one_of_many(results),
            *boot.caveats(),
            *both.board.notes,
        ),
    )


def many(
    results: Results,
    methods: Sequence[str] | None = None,
    common_tasks: bool = False,
    fixed_tasks: bool = False,
) -> Many:
    """Compare rows of a board, by their names; None: all that are ranked.

    With `common_tasks`, None means all that finished some task. Arguments and errors are
    otherwise those of `two`.
    """
    rows, missing = results.board.rows, []
    if methods is None:
        methods = [r.method for r in rows if (any(r.tasks.values()) if common_tasks else r.rank)]
        missing = [
            f"{row.method} is not compared: {_some(row.missing)}."
            for row in rows
            if row.method not in methods
        ]
    methods = list(dict.fromkeys(methods))
    if len(methods) < 3:
        raise UsageError(
            f"too few methods to rank ({', '.join(methods) or 'none'}): name three or more, or two "
            "to compare them: petlbench compare A B. "
            f"There: {', '.join(row.method for row in rows)}."
        )
    chosen, told = _restrict(results, methods, common_tasks)
    for row in chosen.board.rows:
        if not row.complete:
            raise UsageError(f"{row.method} has no seed with every task: {', '.join(row.missing)}.")
    panel = panels.of(chosen, [row.method for row in chosen.board.rows])
    column = _column(panel, results.board.ranking)
    boot = Bootstrap(panel)
    counted = tuple(boot.without_predictions())
    ranks = _ranks(panel) if len(panel.tasks) > 1 and not fixed_tasks else None
    over_tasks = not fixed_tasks and boot.can_draw_tasks(column)
    few = _few_tasks(len(panel.methods), len(panel.tasks)) if ranks else []
    return Many(
        board=chosen.board,
        methods=panel.methods,
        column=column,
        means=_floats(panel.mean(column)),
        intervals=tuple(zip(*boot.interval(column).tolist(), strict=True)),
        letters=_letters(boot, column, False),
        letters_like_these=_letters(boot, column, True) if over_tasks else None,
        ranks=ranks,
        counted=counted,
        notes=(*missing, *told, *few, *boot.caveats(), *chosen.board.notes),
    )


# --- the same tasks and seeds


def _restrict(
    results: Results, methods: Sequence[str], common_tasks: bool
) -> tuple[Results, list[str]]:
    """Only these rows, on the tasks that all of them finished; and what that leaves out."""
    board = results.board
    rows = {row.method: row for row in board.rows}
    for name in methods:
        if name not in rows:
            raise unknown("method", name, rows, f"(In suite {board.suite}: petlbench leaderboard.)")
    finished = {name: [t for t in board.tasks if rows[name].tasks[t]] for name in methods}
    common = [task for task in board.tasks if all(task in found for found in finished.values())]
    by_some = {task for found in finished.values() for task in found}
    lacking = {name: by_some.difference(found) for name, found in finished.items()}
    if any(lacking.values()) and not common_tasks:
        told = "\n".join(f"  {_missing(rows[n], tasks)}" for n, tasks in lacking.items() if tasks)
        raise UsageError(
            f"{', '.join(methods)} did not finish the same tasks, and means over different tasks "
            f"do not compare:\n{told}\nRun what is missing, or add --common-tasks to compare on "
            f"the {len(common)} that all have{': ' if common else ''}{', '.join(common)}."
        )
    if not common:
        raise UsageError(f"{', '.join(methods)} have no task in common.")
    left_out = [task for task in board.tasks if task not in common]
    notes = [f"On {', '.join(common)} alone; not on {', '.join(left_out)}."] if left_out else []
    kept = {key for name in methods for task in common for key in rows[name].runs[task]}
    return _again(results, kept, [rows[name] for name in methods]), notes


def _missing(row: Row, tasks: set[str]) -> str:
    return f"{row.method} lacks {_some([m for m in row.missing if m.split()[0] in tasks])}"


def _some(missing: Sequence[str]) -> str:
    more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
    return f"{', '.join(missing[:5])}{more}"


def _same_seeds(results: Results) -> tuple[Results, list[str]]:
    """Only the seeds with which every row finished every task."""
    rows = results.board.rows
    seeds = {
        row.method: [
            {results.records[key]["spec"]["seed"] for key in keys} for keys in row.runs.values()
        ]
        for row in rows
    }
    common = set.intersection(*(each for found in seeds.values() for each in found))
    if not common:
        told = "; ".join(f"{m} has {_list(set.union(*found))}" for m, found in seeds.items())
        raise UsageError(
            f"no seed finished every task with both methods: {told}. Run both with the same "
            "seeds: petlbench run --seeds N."
        )
    further = {m: set.union(*found) - common for m, found in seeds.items()}
    told = "; ".join(f"{m} has seed {_list(more)} too" for m, more in further.items() if more)
    if not told:
        return results, []
    kept = {k for k, record in results.records.items() if record["spec"]["seed"] in common}
    note = f"Only the seeds that both have, {_list(common)}: {told}."
    return _again(results, kept, rows), [note]


def _again(results: Results, kept: set[str], rows: Sequence[Row]) -> Results:
    """The comparison of these records alone; its rows keep their names."""
    board = results.board
    records = {key: record for key, record in results.records.items() if key in kept}
    unit = None if board.metric == leaderboard.OWN else board.metric
    found = leaderboard.rank(list(records.values()), board.tasks, board.ranking, board.report, unit)
    # a file's version is in the name of a row only beside another version
    names = {key: row.method for row in rows for keys in row.runs.values() for key in keys}
    named = [replace(row, method=names[_any_run(row)]) for row in found.rows]
    return Results(replace(found, rows=tuple(named)), records, results.store)


def _any_run(row: Row) -> str:
    return next(key for keys in row.runs.values() for key in keys)


def _one_of_many(results: Results) -> list[str]:
    """Two methods asked about alone are told apart more easily than all of a board at once."""
    ranked = sum(row.rank is not None for row in results.board.rows)
    if ranked < 3:
        return []
    return [
        f"One pair, asked about by itself. The leaderboard asks about all {ties.pairs(ranked)} "
        "pairs at once, and may not tell these two apart: choose the pair before you look."
    ]


def _column(panel: Panel, ranking: str) -> str:
    if ranking not in panel.columns:
        raise UsageError(f"the group {ranking} ranks, and no common task is in it.")
    return ranking


# --- what the panel tells


def _resampled(boot: Bootstrap, column: str, over_tasks: bool) -> Difference:
    """Of the first two methods."""
    values = boot.panel.mean(column)
    low, high = percentiles(boot.draws(column, over_tasks, of=np.array([[1.0, -1.0]])))[:, 0]
    return Difference(float(values[0] - values[1]), float(low), float(high))


def _letters(boot: Bootstrap, column: str, over_tasks: bool) -> tuple[str, ...]:
    return tuple(ties.letters(ties.apart(boot, column, over_tasks)))


def _ranks(panel: Panel) -> Ranks:
    means = panel.means
    return Ranks(
        average=_floats(rank_tests.average_ranks(means)),
        critical_difference=rank_tests.critical_difference(*means.shape),
        friedman=rank_tests.friedman(means),
        p_values=tuple(map(_floats, rank_tests.pairwise_wilcoxon(means))),
    )


def _on_task(results: Results, panel: Panel, t: int) -> OnTask:
    task = panel.tasks[t]
    (a, b), means = panel.scores[:, t], panel.means[:, t].tolist()
    examples = panel.examples(task)
    known = examples.shape[1] and not np.isnan(examples).any()
    error = (
        paired.error_of_examples(examples[0], examples[1])
        if known
        else paired.error_of_counts(means[0], means[1], int(panel.totals[t]))
    )
    rows = {row.method: row for row in results.board.rows}
    keys = [rows[method].runs[task] for method in panel.methods]
    unit = leaderboard.metric_of(results.cell(keys[0][0], task), results.board.metric)
    right = examples > 0.5
    return OnTask(
        task=task,
        a=means[0],
        b=means[1],
        difference=paired.difference(a, b, error),
        mcnemar=paired.mcnemar(right[0], right[1])
        if known and unit == "accuracy" and len(a) == 1
        else None,
        agreement=_agreement(results, keys, task),
    )


def _agreement(results: Results, keys: Sequence[Sequence[str]], task: str) -> Agreement | None:
    """None unless the predicted classes of all runs are kept; `keys` by method, then by seed."""
    found = [[results.predictions(key, task) for key in of_method] for of_method in keys]
    arrays = [each for of_method in found for each in of_method]
    if any(each is None or "labels" not in each for each in arrays):
        return None
    a, b = (np.stack([each["predictions"] for each in of if each]) for of in found)
    return agreements.agreement(a, b, next(each["labels"] for each in arrays if each))


# --- notes


def _weak(test: Wilcoxon | None) -> list[str]:
    if test is None or not test.n or test.smallest <= 1 - LEVEL:
        return []
    return [
        f"{test.n} tasks that differ can never give Wilcoxon's test a p-value below "
        f"{test.smallest:.3g}: more tasks can."
    ]


def _few_tasks(methods: int, tasks: int) -> list[str]:
    pairs = ties.pairs(methods)
    smallest = min(1.0, pairs * 2.0 ** (1 - tasks))
    if smallest <= 1 - LEVEL:
        return []
    return [
        f"{tasks} tasks can never give Wilcoxon's test a p-value below {2.0 ** (1 - tasks):.3g}, "
        f"or {smallest:.3g} corrected for {pairs} pairs: more tasks can."
    ]


def _list(seeds: set[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _floats(values: NDArray[Any]) -> tuple[float, ...]:
    return tuple(map(float, values))
