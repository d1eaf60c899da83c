"""What a comparison says, in one plain sentence that names the test and what it counted.

On mini (5 tasks, 3 seeds) convpass is better than lora by 8.2 points of mean-of-groups accuracy
(95% interval 7.1 to 9.3, hierarchical bootstrap over seeds and test examples); over tasks like
these the data cannot tell (-1.0 to 17.4; Wilcoxon signed-rank p = 0.0625, n = 5).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from petlbench import wording
from petlbench.leaderboard import OWN
from petlbench.statistics.ties import split

if TYPE_CHECKING:
    from petlbench.compare import Many, Two
    from petlbench.leaderboard import Leaderboard
    from petlbench.statistics.many import Friedman
    from petlbench.statistics.paired import Difference, Wilcoxon


def of_two(found: Two) -> str:
    where, here = _where(found.board, len(found.seeds)), found.here
    if here.verdict == "equal":
        return f"{where} {found.a} and {found.b} are equal: no test score differs."
    unit = f"points of {_unit(found.board, found.column)}"
    sign = -1 if here.verdict == "worse" else 1
    if here.verdict == "cannot tell":
        claim = f"the data cannot tell {found.a} from {found.b}: {signed(here.mean)} {unit}"
    else:
        claim = f"{found.a} is {here.verdict} than {found.b} by {points(abs(here.mean))} {unit}"
    how = of_one_task if len(found.tasks) == 1 else _resampled
    told = how(len(found.seeds), bool(found.counted))
    return f"{where} {claim} (95% interval {interval(here, sign)}, {told}){_beyond(found, sign)}."


def _beyond(found: Two, sign: int) -> str:
    """What is said of tasks like these."""
    here, there, test = found.here.verdict, found.like_these, found.wilcoxon
    if there is None:
        if test:
            return f"; no group has two tasks to resample ({wilcoxon(test)})"
        return "; one task says nothing of others" if len(found.tasks) == 1 else ""
    if there.verdict == "cannot tell":
        claim = f"the data cannot tell{' either' if here == there.verdict else ''}"
    elif there.verdict == here:
        claim = f"it is {here} too"
    else:
        claim = f"{found.a} is {there.verdict}"
    tests = [interval(there, sign), *([wilcoxon(test)] if test else [])]
    return f"; over tasks like these {claim} ({'; '.join(tests)})"


def of_many(found: Many) -> str:
    """The best, what cannot be told from it, and what rank tests over tasks say."""
    where, best = _where(found.board, len(found.board.seeds)), found.methods[0]
    tied = [
        method
        for method, letters in zip(found.methods[1:], found.letters[1:], strict=True)
        if split(letters) & split(found.letters[0])
    ]
    claim = (
        f"{best} has the best {_unit(found.board, found.column)} of {len(found.methods)} methods, "
        f"{points(found.means[0])}% (95% interval {between(*found.intervals[0])}), and "
        + (
            f"cannot be told from {_and(tied)}"
            if tied
            else f"can be told from all {len(found.methods) - 1} others"
        )
    )
    how = _resampled(len(found.board.seeds), bool(found.counted))
    sentence = f"{where} {claim} ({how}, 95% for all pairs at once)"
    return f"{sentence}{_ranks(found)}."


def _ranks(found: Many) -> str:
    """What the rank tests say of tasks like these."""
    if found.ranks is None:
        return "; one task says nothing of others" if len(found.board.tasks) == 1 else ""
    test, count = found.ranks.friedman, len(found.methods)
    decided = sum(found.ranks.p_values[i][j] < 0.05 for i in range(count) for j in range(i))
    claim = "differ" if test.p_value < 0.05 else "cannot be told apart"
    return (
        f"; over tasks like these ranks {claim} (Friedman {friedman(test)}, n = {test.tasks}), and "
        f"Wilcoxon signed-rank tests with Holm's correction tell {decided} of "
        f"{math.comb(count, 2)} pairs apart"
    )


# --- words


def points(value: float) -> str:
    """Of a fraction, in percent, with the sign of minus; nothing is less than zero by rounding."""
    text = f"{100 * value:.1f}".replace("-", "−")
    return "0.0" if text == "−0.0" else text


def signed(value: float) -> str:
    text = points(value)
    return f"+{text}" if value > 0 and text != "0.0" else text


def p(value: float) -> str:
    return "p < 0.0001" if value < 0.0001 else f"p = {value:.3g}"


def wilcoxon(test: Wilcoxon) -> str:
    ties = f", {wording.count(test.zeros, 'tied task')} left out" if test.zeros else ""
    return f"Wilcoxon signed-rank {p(test.p_value)}, n = {test.n}{ties}"


def friedman(test: Friedman) -> str:
    if test.f is None:  # every task has the same order
        return f"chi-squared({test.methods - 1}) = {test.chi2:.3g}, {p(test.p_value)}"
    return f"F{test.degrees} = {test.f:.3g}, {p(test.p_value)}"


def _where(board: Leaderboard, seeds: int) -> str:
    tasks = board.tasks
    on = f"{board.suite}'s {tasks[0]}" if len(tasks) == 1 else board.suite
    return f"On {on} ({wording.count(len(tasks), 'task')}, {wording.count(seeds, 'seed')})"


def _unit(board: Leaderboard, column: str) -> str:
    metric = "score" if board.metric == OWN else wording.metric(board.metric)
    if len(board.tasks) == 1:
        return metric
    if column in ("mean of groups", "mean of tasks"):
        return f"{column.replace(' ', '-')} {metric}"
    return f"mean {metric} of group {column}"


def _resampled(seeds: int, counted: bool) -> str:
    """How the intervals of means were made."""
    examples = "test examples, counted as binomial" if counted else "test examples"
    if seeds == 1:
        return f"bootstrap over {examples}, of one seed"
    return f"hierarchical bootstrap over seeds and {examples}"


def of_one_task(seeds: int, counted: bool) -> str:
    """How the interval of a difference on one task was made."""
    examples = "test examples, counted as binomial" if counted else "paired test examples"
    return (
        f"t over paired seeds and z over {examples}"
        if seeds > 1
        else f"z over {examples}, of one seed"
    )


def interval(found: Difference, sign: int = 1) -> str:
    return between(*sorted((sign * found.low, sign * found.high)))


def between(low: float, high: float) -> str:
    return f"{points(low)} to {points(high)}"


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
