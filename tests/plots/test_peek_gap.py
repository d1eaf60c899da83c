"""The gap is of the board's own runs, and rows without a peek are named."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest
from conftest import CLI

from petlbench import plots
from plots.drawing import TASKS, drawn, made, marks, peek, plain, results_of, sweep


def test_peek_gap() -> None:
    records = [
        made("lora", "a", "Natural", 0, 0.5, peek=peek(0.4, 0.7, 0.5)),
        made("lora", "b", "Structured", 0, 0.7, peek=peek(0.6, 0.65, 0.7)),
        made("vpt", "a", "Natural", 0, 0.9),
        made("vpt", "b", "Structured", 0, 0.9, peek=peek(0.9)),
    ]
    results = results_of(records, TASKS)
    other = made("lora", "a", "Natural", 0, 0.1, peek=peek(0.1, 0.9)) | {"fingerprint": "f" * 12}
    mixed = {record["key"]: record for record in records} | {"f": {**other, "key": "f"}}
    figure = plots.draw("peek-gap", dataclasses.replace(results, records=mixed))
    ((method, shown),) = marks(figure).items()
    assert method == "lora" and list(shown.values()) == pytest.approx([60, 70])
    assert [text.get_text() for text in figure.axes[0].texts] == ["+10.0", "gap"]
    row = next(row for row in results.board.rows if row.method == "lora")
    assert row.peek_gap and row.peek_gap.mean == pytest.approx(0.1)
    words = " ".join(plain(figure).split())
    assert "best-on-test accuracy is shown to measure a bias; it is never reported" in words
    assert "No peek in some run, not drawn: vpt." in words


def test_versions_of_a_file_are_methods_of_their_own() -> None:
    records = sweep(["mine"], TASKS, peek=lambda v: peek(v))
    for record, source in itertools.product(records, ("aaaaaaaa", "bbbbbbbb")):
        if source[0] == "b":
            method = record["spec"]["method"] | {"source": source}
            spec = record["spec"] | {"method": method}
            records = [*records, record | {"spec": spec, "key": f"{record['key']}b"}]
        else:
            record["spec"]["method"] = record["spec"]["method"] | {"source": source}
    assert set(marks(drawn("peek-gap", records, TASKS))) == {"mine@aaaaaa", "mine@bbbbbb"}


def test_the_command_draws_peeks(cli: CLI) -> None:
    assert cli("run", "--report-peek", small=True).code == 0
    assert cli("plot", "peek-gap").out == "wrote peek_gap.png\n"
    assert Path("peek_gap.png").read_bytes().startswith(b"\x89PNG")
    cli("plot", "default-vs-tuned").refused("--search 20")
    cli("plot", "accuracy-vs-shots").refused("no amounts of training images")
