"""What formats share: the columns of a board as text, and what they mean, in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from petlbench import wording
from petlbench.leaderboard import Leaderboard, Row, Score, compact, differences, subject

NONE = "–"
GAP = "Peek gap"  # the one column in which more is not better


@dataclass(frozen=True)
class Cell:
    """What stands in one place: "71.2", "± 0.4", and whether it is "best" or "second".

    `value` is the number behind the text, by which the column may be sorted.
    """

    text: str
    spread: str = ""
    mark: str = ""
    value: float | None = None

    def __str__(self) -> str:
        return f"{self.text} {self.spread}".rstrip()


@dataclass(frozen=True)
class Column:
    """One cell per row of a board."""

    header: str
    cells: Sequence[Cell]
    is_text: bool = False  # no numbers


Scores = Sequence[Score | None]


def who(board: Leaderboard) -> list[Column]:
    """Rank, group of equals where that is known, and method."""
    ranks = [f"{row.rank or NONE}{'*' if row.as_good_as_best else ''}" for row in board.rows]
    found = [_plain("Rank", ranks, values=[row.rank for row in board.rows])]
    if any(row.letters for row in board.rows):
        found.append(_plain("Rank group", [row.letters or NONE for row in board.rows], True))
    return [*found, _plain("Method", [name(row) for row in board.rows], True)]


def name(row: Row) -> str:
    return row.method if row.complete else f"{row.method} (incomplete)"


def means(board: Leaderboard) -> list[Column]:
    return [
        _scores(board, "Mean of groups", [row.mean_of_groups for row in board.rows]),
        _scores(board, "Mean of tasks", [row.mean_of_tasks for row in board.rows]),
    ]


def groups(board: Leaderboard) -> list[Column]:
    return [_scores(board, g, [row.groups[g] for row in board.rows]) for g in board.groups]


def tasks(board: Leaderboard) -> list[Column]:
    return [_scores(board, t, [row.tasks[t] for row in board.rows]) for t in board.tasks]


def further(board: Leaderboard) -> list[Column]:
    """Other metrics, as means of tasks, and the peek gap."""
    found = [
        _scores(board, wording.metric(metric), [row.metrics.get(metric) for row in board.rows])
        for metric in board.report
    ]
    if any(row.peek_gap for row in board.rows):
        found.append(_scores(board, GAP, [row.peek_gap for row in board.rows]))
    return found


def scores(board: Leaderboard) -> list[Column]:
    return means(board) + groups(board) + tasks(board) + further(board)


def columns(board: Leaderboard) -> list[Column]:
    """All that a file has room for."""
    return who(board) + scores(board) + costs(board)


def costs(board: Leaderboard) -> list[Column]:
    """Every convention of counting side by side, where any row tells it."""
    values = [row.trainable_parameters for row in board.rows]
    counted = [_plain("Params", [parameters(row) for row in board.rows], values=values)]
    for header, field, write in _COSTS:
        values = [getattr(row, field) for row in board.rows]
        counted.append(_plain(header, [write(value) for value in values], values=values))
    told = [column for column in counted if any(cell.text != NONE for cell in column.cells)]
    return told + served(board) + efficiency(board)


def served(board: Leaderboard) -> list[Column]:
    if not board.tasks_served:
        return []
    values = [row.served_bytes for row in board.rows]
    return [_plain(serving(board.tasks_served), list(map(size, values)), values=values)]


def serving(tasks: int) -> str:
    return f"{wording.count(tasks, 'task')} served"


def efficiency(board: Leaderboard) -> list[Column]:
    """Scores of the literature that charge for costs; fractions, three digits."""

    def text(value: float | None) -> str:
        return NONE if value is None else f"{value:.3f}"

    values = {each: [row.efficiency[each] for row in board.rows] for each in board.efficiency}
    return [_plain(each.upper(), [*map(text, v)], values=v) for each, v in values.items()]


def definitions(board: Leaderboard, columns: Sequence[Column]) -> dict[str, str]:
    """Header of each of these columns -> what it is, in words; not of each group and task."""
    named = board.ranking in ("mean of groups", "mean of tasks")
    known = {
        "Mean of groups": f"mean over the {wording.count(len(board.groups), 'group')} of each "
        "group's mean over its tasks",
        "Mean of tasks": f"mean over the {wording.count(len(board.tasks), 'task')}",
        "Rank": f"by the {board.ranking if named else f'mean of the group {board.ranking}'}"
        + ("; * cannot be told apart from the best" if _starred(board) else ""),
        GAP: "best test score over training minus the reported one",
        "Params": "trainable parameters without the head",
        "With head": "trainable parameters with the head",
        "At inference": "parameters beside backbone and head that are left after merging",
        "Training": "all tasks, one seed",
        "Peak memory": "the largest of all runs",
        "Stored": "what a task keeps beside the backbone, head included; the largest of all tasks",
        serving(board.tasks_served): "bytes of the backbone's weights that tasks share, in 32 "
        f"bits, and {board.tasks_served} times what is stored",
        **{each.upper(): formula for each, formula in board.efficiency.items()},
    }
    headers = {column.header for column in columns}
    return {header: meaning for header, meaning in known.items() if header in headers}


def caption(board: Leaderboard, columns: Sequence[Column]) -> str:
    """What was compared, how the numbers were made and what the columns are, in one paragraph."""
    known = any(row.ranking and row.ranking.best is not None for row in board.rows)
    marked = "what cannot be told apart from the best" if known else "the best"
    sentences = [
        f"Suite {board.suite}; {subject(board)}; fingerprint {board.fingerprint}; "
        f"{'seeds' if len(board.seeds) > 1 else 'seed'} {', '.join(map(str, board.seeds))}.",
        f"Test {wording.metric(board.metric)} in %{_spread(board)}.",
        *(f"{column}: {meaning}." for column, meaning in definitions(board, columns).items()),
        board.judged,
        f"Of the ranked rows {marked} of a column is in bold.",
    ]
    return " ".join(filter(None, sentences))


def apart(boards: Sequence[Leaderboard]) -> str:
    """Why several boards are not one; empty for one."""
    if len(boards) < 2:
        return ""
    why = "; ".join(differences(boards))
    if not why:
        return (
            "Not ranked against each other, because they lie in different folders: petlbench merge "
            "joins them."
        )
    return f"Not ranked against each other, because they differ in {why}."


def parameters(row: Row) -> str:
    """The mean over tasks, and the range if there is one."""
    mean, low, high = map(
        compact,
        (row.trainable_parameters, row.trainable_parameters_min, row.trainable_parameters_max),
    )
    return mean if low == high else f"{mean} ({low}–{high})"


def interval(score: Score) -> str:
    """Of 95%, in percent; empty where none is known."""
    if score.low is None or score.high is None:
        return ""
    return f"[{100 * score.low:.1f}, {100 * score.high:.1f}]"


def told(score: Score) -> str:
    """A score in a sentence: in percent, with its interval or its spread over seeds."""
    text = f"{100 * score.mean:.1f} %"
    if known := interval(score):
        return f"{text}, 95% interval {known}"
    return text if score.std is None else f"{text} ± {100 * score.std:.1f} over seeds"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(count: int | None) -> str:
    if count is None:
        return NONE
    if count < 999_500:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 9.995e9 else f"{count / 1e9:.1f} GB"


_COSTS: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("With head", "trainable_parameters_with_head", compact),
    ("At inference", "inference_parameters", compact),
    ("Training", "train_seconds", duration),
    ("Peak memory", "peak_bytes", size),
    ("Stored", "stored_bytes", size),
)


def _plain(
    header: str,
    texts: Sequence[str],
    is_text: bool = False,
    values: Sequence[float | None] | None = None,
) -> Column:
    pairs = zip(texts, values or [None] * len(texts), strict=True)
    return Column(header, [Cell(text, value=value) for text, value in pairs], is_text)


def _scores(board: Leaderboard, header: str, scores: Scores) -> Column:
    """In percent, with the 95% interval where it is known, or else the spread over seeds."""
    marks = [""] * len(scores) if header == GAP else _marks(board, scores)
    return Column(header, [_cell(*pair) for pair in zip(scores, marks, strict=True)])


def _cell(score: Score | None, mark: str) -> Cell:
    if score is None:
        return Cell(NONE)
    spread = interval(score) or ("" if score.std is None else f"± {100 * score.std:.1f}")
    return Cell(f"{100 * score.mean:.1f}", spread, mark, score.mean)


def _marks(board: Leaderboard, scores: Scores) -> list[str]:
    """Of the ranked rows: what cannot be told apart from the best, and the best of the rest.

    Where nothing is known of that, the highest mean is the best, equal ones together.
    """
    ranked = [s if row.rank else None for s, row in zip(scores, board.rows, strict=True)]
    top = max((s.mean for s in ranked if s), default=math.inf)
    if ranked == [row.ranking if row.rank else None for row in board.rows]:
        told = [row.as_good_as_best for row in board.rows]  # what the rank groups say
    else:
        told = [s.best if s else None for s in ranked]
    known = any(each is not None for each in told)
    best = [
        s is not None and (is_best is True if known else _same(s.mean, top))
        for s, is_best in zip(ranked, told, strict=True)
    ]
    rest = [s for s, is_best in zip(ranked, best, strict=True) if s and not is_best]
    second = max((s.mean for s in rest), default=math.inf)
    return [
        "best" if is_best else "second" if s and _same(s.mean, second) else ""
        for s, is_best in zip(ranked, best, strict=True)
    ]


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=0, abs_tol=1e-9)


def _starred(board: Leaderboard) -> bool:
    return any(row.as_good_as_best for row in board.rows)


def _spread(board: Leaderboard) -> str:
    ranking = [row.ranking for row in board.rows if row.ranking]
    if any(score.low is not None for score in ranking):
        return ", mean over seeds and its 95% interval"
    return ", mean ± sample standard deviation over seeds" if len(board.seeds) > 1 else ""
