"""Wide CSV: one line per method."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from petlbench.leaderboard import Leaderboard

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
)
_COUNTS = (*_PARAMETERS, "peak_bytes", "stored_bytes")


def write(boards: Sequence[Leaderboard]) -> str:
    """One line per method, accuracies in [0, 1]; several boards share the header.

    Loads with `pandas.read_csv(path, dtype={"fingerprint": str, "checkpoint": str})`; without the
    dtypes, the rare hash that happens to look like a number would be read as one.
    """
    lines, scores = [], ["mean_of_groups", "mean_of_tasks"]
    scores += dict.fromkeys(f"group:{group}" for board in boards for group in board.groups)
    scores += dict.fromkeys(f"task:{task}" for board in boards for task in board.tasks)
    further = dict.fromkeys(f"metric:{m}" for b in boards for row in b.rows for m in row.metrics)
    further |= {"peek_gap": None} if any(row.peek_gap for b in boards for row in b.rows) else {}
    for board in boards:
        for row in board.rows:
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
                "train_seconds": None if row.train_seconds is None else round(row.train_seconds, 3),
                "missing": "; ".join(row.missing),
                "ranked_by": board.ranking,
                "metric": board.metric,
            }
            cells = {"mean_of_groups": row.mean_of_groups, "mean_of_tasks": row.mean_of_tasks}
            cells |= {f"group:{group}": score for group, score in row.groups.items()}
            cells |= {f"task:{task}": score for task, score in row.tasks.items()}
            cells |= {f"metric:{name}": score for name, score in row.metrics.items()}
            cells |= {"peek_gap": row.peek_gap}
            for name, score in cells.items():
                if score:
                    line[name] = round(score.mean, 6)
                    line[f"{name}_std"] = None if score.std is None else round(score.std, 6)
            lines.append(line)
    pairs = [column for name in scores for column in (name, f"{name}_std")]
    text = io.StringIO()
    header = [*_BOARD, "rank", "method", "complete", "seeds", *pairs]
    header += [*_PARAMETERS[:2], "train_seconds", "peak_bytes", "stored_bytes", "missing"]
    header += [*_PARAMETERS[2:], "ranked_by", "metric"]
    header += [column for name in further for column in (name, f"{name}_std")]
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def to_frame(boards: Sequence[Leaderboard]) -> pandas.DataFrame:
    """The CSV as a frame; whole numbers that may be missing are nullable integers."""
    import pandas

    dtype = dict.fromkeys(("rank", *_COUNTS), "Int64")
    dtype |= dict.fromkeys((*_BOARD, "method", "missing", "ranked_by", "metric"), "str")
    return pandas.read_csv(io.StringIO(write(boards)), dtype=dtype).fillna({"missing": ""})
