"""Wide CSV: one line per method."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from petlbench import spreadsheet
from petlbench.formats import _text
from petlbench.leaderboard import Leaderboard, Row
from petlbench.results import Results

if TYPE_CHECKING:
    import pandas

EXTENSION = ".csv"

_BOARD = ("suite", "backbone", "checkpoint", "protocol", "fingerprint")
_PARAMETERS = (
    "trainable_parameters",
    "trainable_parameters_with_head",
    "trainable_parameters_min",
    "trainable_parameters_max",
    "trainable_parameters_mean_of_groups",
    "inference_parameters",
)
_COUNTS = (*_PARAMETERS, "peak_bytes", "stored_bytes", "shared_bytes")
_TEXTS = (*_BOARD, "method", "rank_group", "missing", "ranked_by", "metric", "definitions")


def write(found: Sequence[Results]) -> str:
    """One line per method, scores in [0, 1]; several boards share the header.

    A score has four columns: its mean, `_std` (over seeds), `_low` and `_high` (95% interval);
    `over_tasks` is the interval of what ranks on tasks like these.
    Loads with `pandas.read_csv(path, dtype={"fingerprint": str, "checkpoint": str})`; without the
    dtypes, the rare hash that happens to look like a number would be read as one.
    """
    boards = [each.board for each in found]
    return spreadsheet.write(_header(boards), _lines(boards))


def to_frame(boards: Sequence[Leaderboard]) -> pandas.DataFrame:
    """What the CSV holds; whole numbers that may be missing are nullable integers."""
    import pandas

    served = [f"served_bytes:{n}" for n in {board.tasks_served for board in boards} if n]
    kinds = dict.fromkeys(("rank", *_COUNTS, *served), "Int64")
    kinds |= dict.fromkeys(_TEXTS, "str") | {"as_good_as_best": "boolean"}
    kinds |= {"complete": "bool", "seeds": "int64"}
    header = _header(boards)
    frame = pandas.DataFrame(_lines(boards), columns=header)
    return frame.astype({column: kinds.get(column, "float64") for column in header})


def _lines(boards: Sequence[Leaderboard]) -> list[dict[str, Any]]:
    return [_line(board, row) for board in boards for row in board.rows]


def _header(boards: Sequence[Leaderboard]) -> list[str]:
    scores = ["mean_of_groups", "mean_of_tasks"]
    scores += dict.fromkeys(f"group:{group}" for board in boards for group in board.groups)
    scores += dict.fromkeys(f"task:{task}" for board in boards for task in board.tasks)
    further = dict.fromkeys(f"metric:{m}" for b in boards for row in b.rows for m in row.metrics)
    further |= {"peek_gap": None} if any(row.peek_gap for b in boards for row in b.rows) else {}
    header = [*_BOARD, "rank", "method", "complete", "seeds", *_columns(scores)]
    header += [*_PARAMETERS[:2], "train_seconds", "peak_bytes", "stored_bytes", "missing"]
    header += [*_PARAMETERS[2:], "ranked_by", "metric", *_columns(further)]
    header += ["rank_group", "as_good_as_best", "over_tasks_low", "over_tasks_high", "shared_bytes"]
    header += dict.fromkeys(name for board in boards for name in _asked(board))
    return [*header, "definitions"]


def _columns(scores: Sequence[str] | Mapping[str, None]) -> list[str]:
    return [f"{name}{part}" for name in scores for part in ("", "_std", "_low", "_high")]


def _line(board: Leaderboard, row: Row) -> dict[str, Any]:
    line: dict[str, Any] = {
        "suite": board.suite,
        "backbone": board.backbone["name"],
        "checkpoint": board.backbone["checkpoint"][:12],
        "protocol": board.protocol["name"],
        "fingerprint": board.fingerprint,
        "rank": row.rank,
        "method": row.method,
        "complete": row.complete,
        "seeds": len(row.seeds),
        **{name: getattr(row, name) for name in _COUNTS},
        "train_seconds": _rounded(row.train_seconds, 3),
        "missing": "; ".join(row.missing),
        "ranked_by": board.ranking,
        "metric": board.metric,
        "rank_group": row.letters,
        "as_good_as_best": row.as_good_as_best,
        "over_tasks_low": _rounded(row.over_tasks and row.over_tasks[0], 6),
        "over_tasks_high": _rounded(row.over_tasks and row.over_tasks[1], 6),
        **{name: value(row) for name, value in _asked(board).items()},
        "definitions": _definitions(board),
    }
    cells = {"mean_of_groups": row.mean_of_groups, "mean_of_tasks": row.mean_of_tasks}
    cells |= {f"group:{group}": score for group, score in row.groups.items()}
    cells |= {f"task:{task}": score for task, score in row.tasks.items()}
    cells |= {f"metric:{name}": score for name, score in row.metrics.items()}
    cells |= {"peek_gap": row.peek_gap}
    for name, score in cells.items():
        if score:
            parts = (score.mean, score.std, score.low, score.high)
            columns = _columns([name])
            line |= {c: _rounded(part, 6) for c, part in zip(columns, parts, strict=True)}
    return line


def _asked(board: Leaderboard) -> dict[str, Callable[[Row], Any]]:
    """Columns that are there where they were asked for; a score's name holds its formula."""
    found: dict[str, Callable[[Row], Any]] = {}
    if board.tasks_served:
        found[f"served_bytes:{board.tasks_served}"] = lambda row: row.served_bytes
    for name, formula in board.efficiency.items():
        found[f"{name} = {formula}"] = partial(_efficiency, name)
    return found


def _efficiency(name: str, row: Row) -> float | None:
    return _rounded(row.efficiency[name], 6)


def _definitions(board: Leaderboard) -> str:
    meanings = _text.definitions(board, _text.columns(board))
    told = [f"{column}: {meaning}." for column, meaning in meanings.items()]
    return " ".join([*told, board.judged]).rstrip()


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)
