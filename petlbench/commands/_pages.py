"""What `compare` shows: tables, what they mean, notes, and one sentence to quote."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from petlbench import wording
from petlbench.compare import Many, Two
from petlbench.formats import _text, table
from petlbench.formats import markdown as md
from petlbench.statistics.paired import Difference
from petlbench.statistics.ties import split
from petlbench.verdict import between, interval, of_one_task, p, points, signed, wilcoxon

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NONE = "–"
_HEADER, _WORDS = 12, 25  # characters of a line on a screen


@dataclass(frozen=True)
class Grid:
    """A table of texts: the first column and the last `words` ones are words, the rest numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 0
    spare: Sequence[str] = ()  # columns that a narrow screen leaves out, the first one first

    def is_text(self, column: int) -> bool:
        return column == 0 or column >= len(self.header) - self.words

    def without(self, headers: Sequence[str]) -> Grid:
        kept = [i for i, header in enumerate(self.header) if header not in headers]
        return replace(
            self,
            header=[self.header[i] for i in kept],
            rows=[[row[i] for i in kept] for row in self.rows],
            words=sum(self.is_text(i) for i in kept if i),
        )


@dataclass(frozen=True)
class Page:
    grids: Sequence[Grid]
    remarks: Sequence[str]  # what the tables mean
    notes: Sequence[str]  # what to be careful about
    conclusion: str


# --- two methods


def of_two(found: Two) -> Page:
    test, chance = found.wilcoxon, found.improvement
    within = "" if chance.low is None else f", 95% interval {chance.low:.2f} to {chance.high:.2f}"
    within += " by resampling seeds, too narrow where they are few" if within else ""
    remarks = [
        f"95% intervals of a task: {of_one_task(len(found.seeds), bool(found.counted))}; they are "
        "not corrected for the number of tasks.",
        f"Probability of improvement ({chance.probability:.2f}{within}): how often a run of "
        f"{found.a} beats one of {found.b}, mean over tasks, a tie half.",
        *([f"Over tasks: {wilcoxon(test)}."] if test else []),
        *(_of_mcnemar if any(each.mcnemar for each in found.tasks) else []),
        *(_of_errors(found) if any(each.agreement for each in found.tasks) else []),
        f"Costs: {'; '.join(f'{name} ({meaning})' for name, meaning in _meanings(found))}.",
    ]
    grids = [_tasks(found), *_errors(found), _costs(found)]
    return Page(grids, remarks, found.notes, found.conclusion)


_of_mcnemar = ["McNemar: exact p-value of a task, from the test examples one alone is right on."]


def _of_errors(found: Two) -> list[str]:
    voting = (
        "Votes: accuracy of the class that most runs predict, ties to the better method."
        if len(found.seeds) > 1
        else "One seed of each makes no vote: every disagreement would be a tie."
    )
    return [
        "Errors: kappa of being right (1: on the same test examples, 0: as if by chance), and how "
        f"often both are wrong, mean over seeds. {voting}"
    ]


def _tasks(found: Two) -> Grid:
    tested = any(each.mcnemar for each in found.tasks)
    rows = [
        [
            *(each.task, points(each.a), points(each.b), *_difference(each.difference)),
            *([p(each.mcnemar.p_value) if each.mcnemar else NONE] if tested else []),
        ]
        for each in found.tasks
    ]
    if len(rows) > 1:
        means = {row.method: row.ranking.mean for row in found.board.rows if row.ranking}
        empty = [""] * tested
        both = [points(means[found.a]), points(means[found.b])]
        rows.append([found.column, *both, *_difference(found.here), *empty])
        if found.like_these:
            rows.append(["on tasks like these", "", "", *_difference(found.like_these), *empty])
    header = ["task", found.a, found.b, "difference", "95% interval", f"{found.a} is"]
    title = f"{found.board.suite} · {_metric(found)} in %, differences in points"
    spare = [*(["McNemar"] if tested else []), found.b, found.a]
    header += ["McNemar"] if tested else []
    return Grid(title, header, rows, words=1 + tested, spare=spare)


def _difference(found: Difference) -> list[str]:
    return [signed(found.mean), interval(found), found.verdict]


def _errors(found: Two) -> list[Grid]:
    votes = len(found.seeds) > 1
    rows = [
        [
            *(task, NONE if each.kappa is None else f"{each.kappa:.2f}"),
            *(points(each.both_wrong), points(each.by_chance)),
            *(map(points, (each.ensemble_a, each.ensemble_b, each.ensemble)) if votes else ()),
        ]
        for task, each in ((each.task, each.agreement) for each in found.tasks)
        if each
    ]
    header = ["task", "kappa", "both wrong", "by chance"]
    header += [f"vote of {found.a}", f"of {found.b}", "of both"] if votes else []
    return [Grid("errors on the same test examples, in %", header, rows)] if rows else []


def _costs(found: Two) -> Grid:
    order = [row.method for row in found.board.rows]
    places = [order.index(found.a), order.index(found.b)]
    rows = [
        [column.header, *(str(column.cells[place]) for place in places)]
        for column in _text.costs(found.board)
    ]
    return Grid("costs", ["cost", found.a, found.b], rows)


def _meanings(found: Two) -> list[tuple[str, str]]:
    return list(_text.definitions(found.board, _text.costs(found.board)).items())


# --- several methods


def of_many(found: Many) -> Page:
    remarks = ["Rank group: methods that share a letter cannot be told apart on these tasks."]
    if found.letters_like_these:
        remarks.append("Like these: * cannot be told apart from the best on tasks like these.")
    if found.ranks:
        remarks.append(
            f"Average rank: over the {len(found.board.tasks)} tasks; methods further apart than "
            f"{found.ranks.critical_difference:.2f} differ (Nemenyi, 0.05)."
        )
        remarks.append("Pairs: Wilcoxon signed-rank tests over tasks, with Holm's correction.")
    return Page([_ranking(found), *_pairs(found)], remarks, found.notes, found.conclusion)


def _ranking(found: Many) -> Grid:
    like_these = found.letters_like_these or ()
    columns = {
        found.column: list(map(points, found.means)),
        "95% interval": [between(*each) for each in found.intervals],
        "average rank": [f"{rank:.2f}" for rank in found.ranks.average] if found.ranks else [],
        "rank group": found.letters,
        "like these": ["*" if split(like_these[0]) & split(each) else "" for each in like_these],
    }
    told = {name: column for name, column in columns.items() if column}
    numbers = [f"{i} {method}" for i, method in enumerate(found.methods, 1)]
    rows = list(zip(numbers, *told.values(), strict=True))
    title = f"{found.board.suite} · {_metric(found)} in %"
    spare = [name for name in ("average rank", "95% interval") if name in told]
    return Grid(title, ["method", *told], rows, words=1 + ("like these" in told), spare=spare)


def _pairs(found: Many) -> list[Grid]:
    """The upper triangle of p-values; a column is the number of a method."""
    if not found.ranks:
        return []
    count = len(found.methods)
    rows = [
        [
            *(f"{i + 1} {found.methods[i]}", *[""] * i),
            *(f"{value:.3f}" for value in found.ranks.p_values[i][i + 1 :]),
        ]
        for i in range(count - 1)
    ]
    title = f"p-values of {math.comb(count, 2)} pairs"
    return [Grid(title, ["pair", *(str(i) for i in range(2, count + 1))], rows)]


def _metric(found: Two | Many) -> str:
    return wording.metric(found.board.metric)


# --- where it goes


def show(page: Page, console: Console) -> None:
    """On a screen; columns or tables that do not fit are left out, and that is said."""
    from rich.markup import escape

    unbounded = console.options.update(width=10_000)
    for grid in page.grids:
        for count in range(len(grid.spare) + 1):
            left = ", ".join(grid.spare[:count])
            shown = _table(grid.without(grid.spare[:count]))
            measured = console.measure(shown, options=unbounded)
            needed = measured.maximum if count < len(grid.spare) else measured.minimum
            if needed <= console.width:
                console.print(shown)
                text = f"Columns left out: {left}; --format markdown has them." if left else ""
                break
        else:
            text = f"{grid.title}: {needed} columns wide; --format markdown has it."
        if text:
            console.print(f"[yellow]![/] {escape(text)}\n", highlight=False)
    for remark in page.remarks:
        console.print(escape(remark), style="dim", highlight=False)
    for note in page.notes:
        console.print(f"[yellow]![/] {escape(note)}", highlight=False)
    console.print()
    console.print(escape(page.conclusion), highlight=False)


def text(page: Page) -> str:
    return table.text(lambda console: show(page, console))


def markdown(page: Page) -> str:
    parts = [
        "\n".join(
            [
                f"**{md.escaped(grid.title)}**\n",
                md.line(map(md.escaped, grid.header)),
                md.line(":--" if grid.is_text(i) else "--:" for i in range(len(grid.header))),
                *(md.line(map(md.escaped, row)) for row in grid.rows),
            ]
        )
        for grid in page.grids
    ]
    parts += map(md.escaped, page.remarks)
    parts += ["\n".join(f"- {md.escaped(note)}" for note in page.notes)] if page.notes else []
    return "\n\n".join([*parts, md.escaped(page.conclusion)]) + "\n"


def _table(grid: Grid) -> Table:
    from rich.markup import escape

    shown = table.empty(grid.title)
    shown.title_justify = "left"
    for i, header in enumerate(grid.header):
        short = escape(textwrap.fill(header, _HEADER, break_long_words=False))
        if grid.is_text(i):
            shown.add_column(short, overflow="fold", max_width=_WORDS)
        else:
            shown.add_column(short, justify="right", no_wrap=True)
    for row in grid.rows:
        shown.add_row(*map(escape, row))
    return shown
