"""A board with intervals, rank groups, and what they rest on."""

from __future__ import annotations

from dataclasses import replace

from petlbench.leaderboard import Row, Score
from petlbench.results import Results
from petlbench.statistics import panel as panels
from petlbench.statistics import ties
from petlbench.statistics.bootstrap import Bootstrap


def judge(results: Results, over_tasks: bool = False) -> Results:
    """The same results, their ranked rows with 95% intervals and rank groups.

    Rank groups are about the board's tasks, which is what a board claims; `over_tasks` makes them
    about tasks like these, of which the board's are a sample: a stronger claim, for which few
    suites have tasks enough. Where no group has two tasks nothing can be said of that.
    """
    panel = panels.of(results)
    if not panel.methods:
        return results
    boot = Bootstrap(panel)
    here, anywhere = (ties.apart(boot, panel.ranking, over) for over in (False, True))
    sampled = boot.can_draw_tasks(panel.ranking)
    over_tasks &= sampled
    apart = anywhere if over_tasks else here
    letters = ties.letters(apart) if len(apart) > 1 else [""]
    anew = boot.interval(panel.ranking, over_tasks=True)
    cells = {name: _cells(boot, name) for name in panel.columns}
    cells[panel.ranking] = [  # what ranks is judged once: all pairs, as the letters
        (low, high, not apart[0, m]) for m, (low, high, _) in enumerate(cells[panel.ranking])
    ]
    rows = [
        replace(
            _with_cells(row, {name: found[m] for name, found in cells.items()}, panel.ranking),
            letters=letters[m],
            as_good_as_best=not apart[0, m],
            over_tasks=(float(anew[0, m]), float(anew[1, m])) if sampled else None,
        )
        for m, row in enumerate(results.board.rows[: len(apart)])  # ranked ones come first
    ]
    board = replace(
        results.board,
        rows=(*rows, *results.board.rows[len(rows) :]),
        judged=_explain(boot, here, anywhere, over_tasks),
    )
    return replace(results, board=board)


def _explain(boot: Bootstrap, here: ties.Flags, anywhere: ties.Flags, over_tasks: bool) -> str:
    """How intervals and rank groups were made, and what is not in them."""
    panel = boot.panel
    levels = ["seeds", "test examples"] if len(panel.seeds) > 1 else ["test examples"]
    told = [
        f"Intervals: 95%, by a bootstrap over {' and '.join(levels)} of these tasks "
        f"({boot.count:,} resamples)."
    ]
    if len(panel.methods) > 1:
        drawn = ["tasks", *levels] if over_tasks else levels
        told.append(
            "Rank groups: rows that share a letter cannot be told apart (paired differences over "
            f"{', '.join(drawn[:-1])}{' and ' if drawn[1:] else ''}{drawn[-1]}; 95% for all pairs "
            "at once, by Bonferroni)."
        )
        pairs = ties.pairs(len(panel.methods))
        first, then = (int(flags.sum()) // 2 for flags in (here, anywhere))
        told.append(
            f"On these tasks {first} of {pairs} pairs can be told apart, "
            + (
                f"on tasks like these (tasks drawn anew too, within their groups) {then}."
                if boot.can_draw_tasks(panel.ranking)
                else "and nothing tells how tasks differ: no group has two."
            )
        )
    return " ".join([*told, *boot.caveats()])


Cell = tuple[float, float, bool]  # low, high, not told apart from the best of the column


def _cells(boot: Bootstrap, column: str) -> list[Cell]:
    """Of each method."""
    best = ~ties.apart_from_best(boot, column)
    low, high = boot.interval(column)
    return list(zip(low.tolist(), high.tolist(), best.tolist(), strict=True))


def _with_cells(row: Row, cells: dict[str, Cell], ranking: str) -> Row:
    def told(score: Score | None, column: str) -> Score | None:
        low, high, best = cells[column]
        return score and replace(score, low=low, high=high, best=best)

    return replace(
        row,
        mean_of_groups=told(row.mean_of_groups, "mean of groups"),
        mean_of_tasks=told(row.mean_of_tasks, "mean of tasks"),
        groups={group: told(score, group) for group, score in row.groups.items()},
        tasks={task: told(score, task) for task, score in row.tasks.items()},
        ranking=told(row.ranking, ranking),
    )
