"""What the page says about one comparison, as plain data for its template."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from petlbench import cite, leaderboard, method
from petlbench.formats import _text
from petlbench.leaderboard import Leaderboard, Record, Row
from petlbench.published import block
from petlbench.report import charts
from petlbench.results import Results
from petlbench.wording import count, metric

MOST_RECORDS = 5_000  # in the table of records: more would make the page slow and large


@dataclass(frozen=True)
class Run:
    """One run behind a cell."""

    seed: int
    key: str
    value: float


@dataclass(frozen=True)
class Method:
    """What is told of one row of the leaderboard, and where it comes from."""

    row: Row
    anchor: str
    docstring: str  # empty where the method's file is not known here
    bibtex: str
    settings: tuple[tuple[str, str], ...]
    runs: Mapping[str, tuple[Run, ...]]  # by task


@dataclass(frozen=True)
class Section:
    """One comparison."""

    results: Results
    number: int  # among the comparisons of the page
    chosen: str | None = None  # to compare with in the heat map

    @property
    def board(self) -> Leaderboard:
        return self.results.board

    @property
    def title(self) -> str:
        return f"{self.board.suite} · {self.board.backbone['name']}"

    @cached_property
    def summary(self) -> list[str]:
        """What was compared, and what the data can and cannot tell: sentences."""
        board, records = self.board, self.results.records.values()
        failed = sum(record["status"] != "done" for record in records)
        told = [
            f"{count(len(board.rows), 'method')} on {count(len(board.tasks), 'task')} with "
            f"{count(len(board.seeds), 'seed')}: {count(len(records), 'run')}, "
            f"{failed or 'none'} of them failed."
        ]
        ranked = [row for row in board.rows if row.rank and row.ranking]
        if not ranked:
            return [*told, "No method has finished every task, so nothing is ranked."]
        first, others = ranked[0], ranked[1:]
        assert first.ranking is not None
        told.append(
            f"{first.method} has {'the highest' if others else 'an'} {metric(board.metric)}, by "
            f"{board.ranking}: {_text.told(first.ranking)}."
        )
        tied = [row.method for row in others if row.as_good_as_best]
        if tied:
            told.append(f"The data cannot tell it apart from {_names(tied)}.")
        elif others and all(row.as_good_as_best is False for row in others):
            told.append("The data tell it apart from every other ranked method.")
        elif others:
            told.append("Whether the others are worse than it was not tested.")
        if left := len(board.rows) - len(ranked):
            told.append(f"{count(left, 'method')} incomplete and therefore not ranked.")
        return told

    @cached_property
    def columns(self) -> list[_text.Column]:
        """Of the leaderboard; the many tasks come last."""
        board = self.board
        scores = _text.means(board) + _text.groups(board)
        rest = _text.costs(board) + _text.further(board) + _text.tasks(board)
        return _text.who(board) + scores + rest

    @property
    def caption(self) -> str:
        return _text.caption(self.board, self.columns)

    @property
    def baseline(self) -> str | None:
        """What the heat map compares with: the linear probe, else the first of the ranking."""
        ranked = [row.method for row in self.board.rows if row.rank]
        if self.chosen in [row.method for row in self.board.rows]:
            return self.chosen
        if len(ranked) < 2:
            return None
        return "linear" if "linear" in ranked else ranked[0]

    @cached_property
    def params_vs_accuracy(self) -> charts.Json | None:
        settings = {
            each.row.method: ", ".join(f"{name} = {value}" for name, value in each.settings) or "–"
            for each in self.methods
        }
        return charts.params_vs_accuracy(self.board, settings, f"c{self.number}-params")

    @cached_property
    def heat_map(self) -> charts.Json:
        return charts.heat_map(self.board, self.baseline, f"c{self.number}-heat")

    @cached_property
    def methods(self) -> list[Method]:
        return [self._method(row, place) for place, row in enumerate(self.board.rows, 1)]

    @cached_property
    def published(self) -> block.Grid | None:
        """What papers report of these methods on this suite: means and groups."""
        rows = block.beside(self.board.suite, [row.method for row in self.board.rows])
        return block.as_grid(rows, whole=False) if rows else None

    @property
    def protocol(self) -> list[tuple[str, str]]:
        return list(_flat(self.board.protocol))

    @property
    def backbone(self) -> list[tuple[str, str]]:
        return list(_flat(self.board.backbone))

    @cached_property
    def environment(self) -> list[tuple[str, list[tuple[str, int]]]]:
        """Field -> its values, each with the number of runs; what most runs had comes first."""
        values: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for record in self.results.records.values():
            for name, value in _flat(record.get("environment", {})):
                values[name][value] += 1
        return [
            (name, sorted(found.items(), key=lambda item: (-item[1], item[0])))
            for name, found in sorted(values.items())
        ]

    @cached_property
    def data(self) -> list[tuple[str, str, int, str]]:
        """Task, its group, examples in the test set and the digest of these."""
        found = {}
        for row in self.board.rows:
            for task, keys in row.runs.items():
                if keys and task not in found:
                    record = self.results.cell(keys[0], task)
                    found[task] = (record["test"]["total"], record["data"]["test"])
        return [
            (task, group, *found[task])
            for group, tasks in self.board.groups.items()
            for task in tasks
            if task in found
        ]

    @cached_property
    def citations(self) -> str:
        found = cite.Citations()
        cite.of_records(found, map(dict, self.results.records.values()))
        return found.text()

    @cached_property
    def records(self) -> list[tuple[Record, float | None]] | None:
        """Every record and its score; None where they are more than MOST_RECORDS."""
        if len(self.results.records) > MOST_RECORDS:
            return None
        return [
            (record, self._value(record) if record["status"] == "done" else None)
            for record in self._ordered(self.results.records.values())
        ]

    def _ordered(self, records: Iterable[Record]) -> list[Record]:
        """By methods, tasks and seeds."""
        place = {task: i for i, task in enumerate(self.board.tasks)}

        def order(record: Record) -> tuple[Any, ...]:
            spec = record["spec"]
            return spec["method"]["label"], place[spec["task"]], spec["seed"], record["key"]

        return sorted(records, key=order)

    def _value(self, record: Record) -> float:
        return leaderboard.value(record, self.board.metric)

    def _method(self, row: Row, place: int) -> Method:
        records = self._ordered(self.results.of(row))
        name = records[0]["spec"]["method"]["name"] if records else row.method
        own = bool(records) and records[0]["spec"]["method"]["source"] is not None
        docstring, bibtex = _written(name, own)
        return Method(
            row=row,
            anchor=f"c{self.number}-m{place}",
            docstring=docstring,
            bibtex=bibtex,
            settings=tuple(_settings(records)),
            runs={
                task: tuple(
                    Run(cell["spec"]["seed"], key, self._value(cell))
                    for key in keys
                    for cell in (self.results.cell(key, task),)
                )
                for task, keys in row.runs.items()
            },
        )


def _written(name: str, own: bool) -> tuple[str, str]:
    """The docstring and BibTeX in a method's file, which is not run; `own`: a user's method."""
    hidden = method.is_path(name) or (own and name in method.builtin())
    file = None if hidden else cite.file_of(name)
    if file is None:
        return "", ""
    text = method.docstring(file)
    if summary := method.members(file).get(name.partition(":")[2]):
        text = f"{summary}\n\n{text}"  # of a family, whose file tells of all its members
    return text, (cite.constant(file) or "").strip()


def _settings(records: Iterable[Record]) -> Iterable[tuple[str, str]]:
    """Setting -> its value; values that differ between tasks each with its tasks."""
    values: defaultdict[str, defaultdict[str, dict[str, None]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    for record in records:
        for name, value in _flat(record["spec"]["method"]["config"]):
            values[name][value][record["spec"]["task"]] = None
    for name, found in values.items():
        if len(found) == 1:
            yield name, next(iter(found))
        else:
            yield name, "; ".join(f"{v} on {', '.join(t)}" for v, t in found.items())


def _flat(values: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, str]]:
    """Field -> value as text; fields of fields with a dot."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", "not set" if value is None else str(value)


def _names(names: list[str], most: int = 6) -> str:
    shown = names[:most]
    if left := len(names) - len(shown):
        return f"{', '.join(shown)} and {left} more"
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
