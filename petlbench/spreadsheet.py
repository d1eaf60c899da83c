"""CSV that may be opened in a spreadsheet: a name is no formula there.

A text that would be one gets an apostrophe before it, as OWASP advises ("CSV Injection"); numbers,
also negative ones, stay numbers. `unguarded` gives the text back.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

# apostrophes that it begins with count too, or one of them would be lost on the way back
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


def write(header: Iterable[str], lines: Iterable[Mapping[str, Any]]) -> str:
    """The text of a file; what a line does not name stays empty."""
    columns = list(header)
    rows = [[line.get(column) for column in columns] for line in lines]
    return _line(columns) + "".join(map(_line, rows))


def from_frame(frame: pd.DataFrame) -> str:
    """The text of a file, without the index; what is missing stays empty."""
    rows = frame.astype(object).where(frame.notna(), None).itertuples(index=False)
    return write(frame.columns, [dict(zip(frame.columns, row, strict=True)) for row in rows])


def _line(cells: Iterable[Any]) -> str:
    # csv quotes the signs of its own ends of lines alone: with "\n" for one, a CR would end a line
    line = io.StringIO()
    csv.writer(line, lineterminator="\r\n").writerow(map(guarded, cells))
    return line.getvalue()[:-2] + "\n"


def guarded(value: Any) -> Any:
    if isinstance(value, str) and _FORMULA.match(value) and not _NUMBER.fullmatch(value):
        return f"'{value}"
    return value


def unguarded(text: str) -> str:
    """What was written, of a cell as it was read."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
