"""Long CSV: one line per method, task and seed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from petlbench import leaderboard, spreadsheet
from petlbench.leaderboard import Record
from petlbench.results import Results

EXTENSION = ".csv"


def write(found: Sequence[Results]) -> str:
    """Every finished run that a board counts, once for each set it was tested on, not rounded.

    `score` is the task's own metric; `settings` are the method's, as JSON; `ranked` says whether
    the row of the method is complete.
    """
    lines = [line for each in found for line in _lines(each)]
    return spreadsheet.write(dict.fromkeys(name for line in lines for name in line), lines)


def _lines(results: Results) -> Iterator[dict[str, Any]]:
    for row in results.board.rows:
        for task, keys in row.runs.items():
            for key in keys:
                record = results.cell(key, task)
                config = json.dumps(record["spec"]["method"]["config"], sort_keys=True)
                told = {"method": row.method, "ranked": row.complete, "settings": config}
                yield as_line(record) | told


def as_line(record: Record) -> dict[str, Any]:
    """What one run measured on one set: what identifies it, its score, all metrics, its costs."""
    spec, test = record["spec"], record["test"]
    metrics = leaderboard.metrics(test)
    metric = test.get("metric", "accuracy")
    return {
        "suite": spec["suite"],
        "group": spec["group"],
        "task": spec["task"],
        "method": spec["method"]["label"],
        "seed": spec["seed"],
        "metric": metric,
        "score": metrics[metric],
        **metrics,
        "correct": test.get("correct"),
        "total": test["total"],
        "trainable_parameters": record["parameters"]["trainable"],
        "head_parameters": record["parameters"]["head"],
        "stored_bytes": record["stored_bytes"],
        "train_seconds": record["train_seconds"],
        "test_seconds": record["test_seconds"],
        "peak_bytes": record["peak_bytes"],
        "backbone": spec["backbone"]["name"],
        "checkpoint": spec["backbone"]["checkpoint"],
        "protocol": spec["protocol"]["name"],
        "fingerprint": record["fingerprint"],
        "key": record["key"],
    }
