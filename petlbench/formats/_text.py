"""What formats share: the words of a board, and its columns as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from petlbench.leaderboard import Leaderboard, Row, Score, compact, differences, subject

GAP = "Peek gap"  # the one column in which more is not better

# Columns of one board: header, one score per row.
Columns = list[tuple[str, list[Score | None]]]


def caption(board: Leaderboard) -> str:
    """What was compared and how the numbers were made, in one paragraph."""
    spread = ", mean ± sample standard deviation over seeds" if len(board.seeds) > 1 else ""
    named = board.ranking in ("mean of groups", "mean of tasks")
    decides = board.ranking if named else f"mean of the group {board.ranking}"
    unit = board.metric.replace("_", " ")
    gap = any(row.peek_gap for row in board.rows)
    return (
        f"Suite {board.suite}; {subject(board)}; fingerprint {board.fingerprint}; "
        f"{'seeds' if len(board.seeds) > 1 else 'seed'} {', '.join(map(str, board.seeds))}. "
        f"Test {unit} in %{spread}. "
        f"Mean of groups: mean over the {len(board.groups)} group(s) of each group's mean over its "
        f"tasks. Mean of tasks: mean over the {len(board.tasks)} task(s). "
        f"The {decides} decides the rank. "
        "Params: trainable parameters without the head. Training: all tasks, one seed."
        + (" Peek gap: best test score over training minus the reported one." if gap else "")
    )


def apart(boards: Sequence[Leaderboard]) -> str:
    if len(boards) < 2:
        return ""
    return f"Not ranked against each other, because they differ in {'; '.join(differences(boards))}"


def means(board: Leaderboard) -> Columns:
    return [
        ("Mean of groups", [row.mean_of_groups for row in board.rows]),
        ("Mean of tasks", [row.mean_of_tasks for row in board.rows]),
    ]


def columns(board: Leaderboard) -> Columns:
    return means(board) + of_groups(board) + of_tasks(board) + further(board)


def further(board: Leaderboard) -> Columns:
    """Other metrics, as means of tasks, and the peek gap."""
    columns: Columns = [
        (name.replace("_", " "), [row.metrics.get(name) for row in board.rows])
        for name in board.report
    ]
    if any(row.peek_gap for row in board.rows):
        columns.append((GAP, [row.peek_gap for row in board.rows]))
    return columns


def of_groups(board: Leaderboard) -> Columns:
    return [(group, [row.groups[group] for row in board.rows]) for group in board.groups]


def of_tasks(board: Leaderboard) -> Columns:
    return [(task, [row.tasks[task] for row in board.rows]) for task in board.tasks]


def texts(board: Leaderboard, scores: Sequence[Score | None], bold: str) -> list[str]:
    """One column in percent; the best of the ranked rows goes through the `bold` format."""
    pairs = list(zip(scores, board.rows, strict=True))
    best = max((score.mean for score, row in pairs if score and row.rank), default=math.inf)
    texts = []
    for score, row in pairs:
        if score is None:
            texts.append("–")
            continue
        text = f"{100 * score.mean:.1f}"
        if row.rank and math.isclose(score.mean, best, abs_tol=1e-9):
            text = bold.format(text)
        texts.append(text if score.std is None else f"{text} ± {100 * score.std:.1f}")
    return texts


def name(row: Row) -> str:
    return row.method if row.complete else f"{row.method} (incomplete)"


def parameters(row: Row) -> str:
    """The mean over tasks, and the range if there is one."""
    mean, low, high = map(
        compact,
        (row.trainable_parameters, row.trainable_parameters_min, row.trainable_parameters_max),
    )
    return mean if low == high else f"{mean} ({low}–{high})"


def duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size(count: int | None) -> str:
    if count is None:
        return "–"
    return f"{count / 1e3:.0f} kB" if count < 999_500 else f"{count / 1e6:.1f} MB"
