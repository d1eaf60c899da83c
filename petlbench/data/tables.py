"""A CSV file with one image a line: `path,label[,split][,group]`, the first line naming columns.

Paths are relative to the file's folder, or absolute. Labels are names, or whole numbers: classes
are sorted by name or by number, and the names of the classes are what the file says. `split` is
train, val or test; `group` is what must stay on one side, such as a patient.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from petlbench.data.labelled import GIVEN, Labelled, keep_apart, refuse
from petlbench.errors import UsageError, unknown

Row = tuple[int, dict[str, str]]


def read(file: Path) -> Labelled:
    """The images of a table. Raises UsageError naming file, line and what is wrong with it."""
    lines = rows(file, ("path", "label"), ("split", "group"))
    refuse(file, _problems(file.parent, lines))
    names, labels = _classes([row["label"] for _, row in lines])
    if len(names) == 1:
        raise UsageError(f"{file} has only one label, {names[0]!r}; two are needed to compare.")
    splits = [row["split"] for _, row in lines if "split" in row]
    groups = [row["group"] for _, row in lines if "group" in row]
    if splits:
        missing = [name for name in ("train", "test") if name not in splits]
        if missing:
            raise UsageError(
                f"{file} has no line whose split is {missing[0]}: add some, or leave the column "
                "split out to have a fifth of the images set aside for testing."
            )
        keep_apart(file, "group", splits, groups, [f"line {number}" for number, _ in lines])
    return Labelled(
        file.parent,
        names,
        [row["path"] for _, row in lines],
        labels,
        layout="table",
        splits=splits,
        groups=groups,
    )


def rows(file: Path, required: Sequence[str], optional: Sequence[str] = ()) -> list[Row]:
    """(line number, column -> value) of a CSV file whose first line names its columns.

    No value is empty. Raises UsageError naming file, line and what is wrong with it.
    """
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:  # Excel writes a mark first
            reader = csv.reader(stream, strict=True)
            table = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{file} cannot be read as a CSV file: {error}") from error
    table = [(number, cells) for number, cells in table if any(cells)]  # not blank
    columns = [name.lower() for name in table[0][1]] if table else []
    if not set(required) <= set(columns):
        raise UsageError(
            f"{file}: the first line must name the columns {','.join(required)}"
            f"{''.join(f'[,{name}]' for name in optional)}, with commas between them; it says: "
            f"{','.join(columns)[:80] or 'nothing'}"
        )
    for column in columns:
        if column not in (*required, *optional):
            raise unknown(f"column of {file}", column, (*required, *optional))
        if columns.count(column) > 1:
            raise UsageError(f"{file}: the column {column} is there twice.")
    problems: list[str] = []
    found: list[Row] = []
    for number, cells in table[1:]:
        if len(cells) != len(columns):
            problems.append(f"line {number}: {len(cells)} cells instead of {len(columns)}")
            continue
        row = dict(zip(columns, cells, strict=True))
        problems += [f"line {number}: {name} is empty" for name, cell in row.items() if not cell]
        found.append((number, row))
    refuse(file, problems)
    if not found:
        raise UsageError(f"{file} has a first line, and no other.")
    return found


def _problems(base: Path, lines: Sequence[Row]) -> Iterator[str]:
    first: dict[str, Row] = {}
    for number, row in lines:
        earlier, other = first.setdefault(os.path.normpath(row["path"]), (number, row))
        where = f"line {number}: {row['path'][:200]}"
        if other["label"] != row["label"]:
            yield f"{where} is {row['label']!r}, but {other['label']!r} in line {earlier}"
        elif earlier != number:
            yield f"{where} is already in line {earlier}"
        elif not os.path.isfile(base / row["path"]):  # Path.is_file raises for a name too long
            yield f"{where} is not there: no file {base / row['path']}"
        if "split" in row and row["split"] not in GIVEN:
            yield f"line {number}: {unknown('split', row['split'], GIVEN)}"


def _classes(values: Sequence[str]) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes, and the label of every value; whole numbers are told by their value."""
    if all(re.fullmatch("-?[0-9]{1,18}", value) for value in values):
        numbers = sorted({int(value) for value in values})
        order = {number: label for label, number in enumerate(numbers)}
        return tuple(map(str, numbers)), [order[int(value)] for value in values]
    names = sorted(set(values))
    label = {name: index for index, name in enumerate(names)}
    return tuple(names), [label[value] for value in values]
