"""The files a leaderboard is written to, read back by what reads such files."""

from __future__ import annotations

import io
import json
import statistics

import pandas as pd
import pytest
from rich.console import Console
from test_leaderboard import GROUPS, full, record, written

from petlbench.formats import table
from petlbench.formats.csv import to_frame
from petlbench.leaderboard import Leaderboard, build


def mixed() -> list[Leaderboard]:
    records = full("lora(rank=4,alpha=8)", trainable=327552) + full("vpt|x", 60, head=7)
    records += [record("ssf", error="NonFiniteLoss")]
    return build(records + full("lora", seeds=1, fingerprint="ffff", epochs=3), list(GROUPS))


def test_csv_loads_in_one_line() -> None:
    boards = mixed()
    frame = pd.read_csv(io.StringIO(written(boards, "csv")))
    assert len(frame) == 4 and frame.complete.dtype == bool and frame.seeds.dtype == "int64"
    best = frame.iloc[0]
    assert best["method"] == "lora(rank=4,alpha=8)" and best["rank"] == 1
    assert best["mean_of_groups"] == 0.705 and best["task:digits"] == 0.705
    assert best["task:digits_std"] == round(statistics.stdev([0.7, 0.71]), 6)
    assert best["trainable_parameters"] == 327552 and best["train_seconds"] == 6
    assert frame["method"].tolist()[2] == "ssf"
    assert "failed: NonFiniteLoss" in frame["missing"].tolist()[2]
    scores = [column for column in frame if str(column).startswith(("mean", "group", "task"))]
    assert (frame[scores].dtypes == "float64").all()
    typed = to_frame(boards)
    assert typed["rank"].dtype == "Int64" and typed["fingerprint"].tolist()[0] == "0123456789ab"
    assert typed["checkpoint"].str.len().eq(12).all() and typed["missing"].tolist()[0] == ""
    assert to_frame([]).empty and build([]) == []


def test_json_keeps_everything() -> None:
    boards = mixed()
    read = json.loads(written(boards, "json"))
    assert read[0]["rows"][0]["mean_of_groups"]["mean"] == pytest.approx(0.705)
    assert read[0]["rows"][0]["method"] == "lora(rank=4,alpha=8)"
    assert [board["fingerprint"] for board in read] == [board.fingerprint for board in boards]


def test_markdown_is_a_table() -> None:
    text = written(mixed()[:1], "markdown")
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = [line.replace("\\|", "").count("|") for line in table]
    assert len(table) == 2 + 3 and len(set(cells)) == 1
    assert "vpt\\|x" in text and "**70.5** ± 0.7" in text and "0.33M" in text
    assert "**60.5**" not in text and "ssf (incomplete)" in text
    for words in ("Suite mini", "vit_mini", "0123456789ab", "seeds 0, 1", "Mean of groups:"):
        assert words in text


@pytest.mark.parametrize("width", [80, 100, 200])
def test_printed_table_fits_and_shows_every_method(width: int) -> None:
    stream = io.StringIO()
    table.show(mixed(), Console(file=stream, width=width))
    text = stream.getvalue()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text and "70.5 ±0.7" in text
    for words in ("lora(rank=4,alpha=8)", "vpt|x", "ssf", "0.33M", "6.0 s", "epochs: 12 | 3"):
        assert words in text
    assert ("digits" in text.splitlines()[3]) == (width == 200)
