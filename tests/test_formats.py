"""The files a leaderboard is written to, read back by what reads such files."""

from __future__ import annotations

import io
import json
import re
import statistics
from argparse import Namespace
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from test_leaderboard import GROUPS, full, record, written

from petlbench import efficiency, formats
from petlbench.commands._shared import chosen_format
from petlbench.errors import UsageError
from petlbench.formats import latex, table
from petlbench.formats.csv import to_frame
from petlbench.leaderboard import Leaderboard, Score, build, serve
from petlbench.wording import visible


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


@pytest.mark.parametrize("width", [40, 60, 80])
def test_a_group_that_ranks_is_shown_however_narrow_the_screen(width: int) -> None:
    (board,) = build(full("lora"), list(GROUPS), ranking="Natural")
    assert board.ranking in board.groups
    stream = io.StringIO()
    table.show([board], Console(file=stream, width=width))
    assert "Natural" in stream.getvalue().partition("──")[0]  # of the headers


# -- what statistics found ------------------------------------------------------------------------


def judged() -> list[Leaderboard]:
    """A board in which a and b cannot be told apart; it says so in words that need escaping."""
    (board,) = build(full("a<b>&_%", 80) + full("b", 79) + full("c", 60), list(GROUPS))

    def sure(score: Score | None, best: bool) -> Score:
        assert score is not None
        return replace(score, low=score.mean - 0.02, high=score.mean + 0.02, best=best)

    rows = []
    for row, letters in zip(board.rows, ("a", "a", "b"), strict=True):
        best = letters == "a"
        scores = {t: sure(score, best) for t, score in row.tasks.items()}
        mean = sure(row.mean_of_groups, best)
        changed = replace(row, tasks=scores, mean_of_groups=mean, ranking=mean, letters=letters)
        rows.append(replace(changed, as_good_as_best=best, over_tasks=(0.1, 0.9)))
    return [replace(board, rows=tuple(rows), judged="Intervals: 95%, by a bootstrap.")]


def test_csv_has_intervals_and_groups() -> None:
    frame = to_frame(judged())
    assert frame["rank_group"].tolist() == ["a", "a", "b"]
    assert frame["as_good_as_best"].tolist() == [True, True, False]
    assert frame["mean_of_groups_low"].tolist() == pytest.approx([0.785, 0.775, 0.585])
    assert frame["task:digits_high"].tolist() == pytest.approx([0.825, 0.815, 0.625])
    assert frame["mean_of_tasks_low"].isna().all()
    assert frame["over_tasks_low"].eq(0.1).all() and frame["over_tasks_high"].eq(0.9).all()
    assert "by a bootstrap" in frame["definitions"].iloc[0]


def test_markdown_shows_ties() -> None:
    text = written(judged(), "markdown")
    assert "| 1\\* | a | a\\<b>&\\_% | **80.5** [78.5, 82.5] |" in text
    assert "| 2\\* | a | b | **79.5** [77.5, 81.5] |" in text
    assert "| 3 | b | c | 60.5 [58.5, 62.5] |" in text
    for words in ("95% interval", "by a bootstrap", "cannot be told apart from the best"):
        assert words in text


def test_the_screen_shows_ties() -> None:
    text = written(judged(), "table")
    assert "1*" in text and "80.5 [78.5, 82.5]" in text


def test_latex_marks_best_and_second() -> None:
    text = written(judged(), "latex")
    assert r"1* & a & a\textless{}b\textgreater{}\&\_\% & \textbf{80.5} {[}78.5, 82.5{]}" in text
    assert r"2* & a & b & \textbf{79.5}" in text and r"3 & b & c & \underline{60.5}" in text
    plain = written(build(full("a", 80) + full("b", 80) + full("c", 60), list(GROUPS)), "latex")
    rows = [line for line in plain.splitlines() if line.startswith(("1 &", "3 &"))]
    assert [r"\textbf{80.5} $\pm$ 0.7" in line for line in rows] == [True, True, False]
    assert r"\underline{60.5}" in rows[2]
    assert plain.count(r"\begin{table}") == plain.count(r"\end{table}") == 1
    widths = {line.count(" & ") for line in plain.splitlines() if line.endswith(r"\\")}
    (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", plain)
    assert widths == {len(columns) - 1}


@given(st.text())
def test_latex_reads_as_it_was_written(text: str) -> None:
    written_text = latex.escape(text)
    back = written_text
    for command in re.findall(r"\\text[a-z]+\{\}|\$\\[a-z]+\$|\{[\[\]]\}|\\[&%$#_{}]|--", back):
        assert command in latex._ESCAPED.values()
    left = re.sub(r"\\text[a-z]+\{\}|\$\\(pm|times)\$|\{[\[\]]?\}|\\[&%$#_{}]", "", written_text)
    assert not set(left) & set('\\&%$#_{}~^<>|"±×–[]\n')
    inverse = {sign: text for text, sign in latex._ESCAPED.items()} | {"{}": ""}
    pattern = "|".join(map(re.escape, sorted(inverse, key=len, reverse=True)))
    restored = re.sub(pattern, lambda found: inverse[found.group()], written_text)
    assert restored == " ".join(visible(text).split())


class Cells(HTMLParser):
    """The text of every cell, by row, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: set[str] = set()
        self.inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self.inside = True

    def handle_endtag(self, tag: str) -> None:
        self.inside = self.inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.rows[-1][-1] += data


def test_html_is_a_table_that_needs_nothing_else() -> None:
    page = written(judged(), "html")
    cells = Cells(page)
    assert cells.rows[0][:4] == ["Rank", "Rank group", "Method", "Mean of groups"]
    assert cells.rows[1][:4] == ["1*", "a", "a<b>&_%", "80.5 [78.5, 82.5]"]
    assert len({len(row) for row in cells.rows}) == 1 and len(cells.rows) == 4
    assert "<b>80.5</b>" in page and "<b>60.5</b>" not in page
    assert not cells.tags & {"script", "link", "img"} and "http" not in page


def test_json_says_what_columns_mean() -> None:
    (board,) = json.loads(written(judged(), "json"))
    assert board["rows"][0]["mean_of_groups"]["low"] == pytest.approx(0.785)
    assert board["rows"][0]["letters"] == "a" and board["judged"].startswith("Intervals")
    assert "each group's mean" in board["definitions"]["Mean of groups"]


# -- one line per run -----------------------------------------------------------------------------


def test_tidy_has_a_line_per_method_task_and_seed() -> None:
    found = synthetic.results(synthetic.records(methods=3, tasks=4, seeds=2))
    frame = pd.read_csv(io.StringIO(formats.write([found], "tidy")), dtype={"key": str})
    assert len(frame) == 3 * 4 * 2 and set(frame["key"]) == set(found.records)
    for row in found.board.rows:
        mine = frame[frame.method == row.method]
        assert row.mean_of_tasks is not None
        by_seed = mine.groupby("seed").score.mean()
        assert by_seed.mean() == pytest.approx(row.mean_of_tasks.mean, abs=1e-12)
        assert mine["ranked"].all() and (mine.correct / mine.total == mine.score).all()


def test_tidy_tells_runs_of_incomplete_rows_too() -> None:
    records = synthetic.records(methods=2, tasks=2, seeds=2)
    found = synthetic.results(records[:-2])  # the last method lacks a task
    frame = pd.read_csv(io.StringIO(formats.write([found], "tidy")))
    assert frame["ranked"].tolist() == [True] * 4 + [False] * 2
    assert json.loads(frame["settings"][0]) == {}


@pytest.mark.parametrize("width", [32, 40, 60])
def test_a_narrow_screen_shows_who_is_ranked_and_drops_numbers(width: int) -> None:
    stream = io.StringIO()
    table.show(judged(), Console(file=stream, width=width))
    lines = stream.getvalue().split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= width and "…" not in stream.getvalue()
    for rank, method in (("1*", "a<b>&_%"), ("2*", "b"), ("3", "c")):
        (line,) = [line.split() for line in lines if line.split()[:1] == [rank]]
        assert method in line
    assert ("Training" in stream.getvalue()) == (width == 60)


# -- what was asked for ---------------------------------------------------------------------------


def test_bytes_of_tasks_served() -> None:
    records = [r | {"shared_bytes": 0, "stored_bytes": 1000} for r in full("full")]
    records += [r | {"shared_bytes": 900, "stored_bytes": 10} for r in full("lora", 60)]
    records += full("old", 50)  # of a version that did not count
    board = serve(build(records, list(GROUPS))[0], 5)
    assert {row.method: row.served_bytes for row in board.rows} == {
        "full": 5000, "lora": 950, "old": None
    }  # fmt: skip
    frame = to_frame([board])
    assert frame["served_bytes:5"].tolist()[:2] == [5000, 950]
    assert "5 tasks served" in written([board], "markdown")


def test_a_csv_defines_the_columns_that_are_there() -> None:
    board = build(full("a"), list(GROUPS))[0]
    (told,) = set(to_frame([board])["definitions"])
    assert "Params: trainable parameters without the head." in told
    assert "over the 1 group of" in told if len(board.groups) == 1 else "groups of" in told
    assert "(s)" not in told and "served" not in told and "Peek gap" not in told
    assert "5 tasks served: " in to_frame([serve(board, 5)])["definitions"][0]


def test_a_formula_stands_in_the_header() -> None:
    board = efficiency.add(build(full("a"), list(GROUPS))[0], ["ppt"])
    header = written([board], "csv").splitlines()[0]
    assert "ppt = score × exp(-log10(trainable parameters without head / 1e7 + 1))" in header
    for form in ("markdown", "latex", "html", "table"):
        text = written([board], form)
        assert "PPT" in text and "exp(-log10(" in " ".join(text.split())
    assert json.loads(written([board], "json"))[0]["efficiency"]["ppt"].startswith("score")


def test_costs_that_no_record_tells_have_no_column() -> None:
    told = [r | {"inference": {"parameters": 0, "flops": 0}} for r in full("a")]
    assert "At inference" in written(build(told, list(GROUPS)), "markdown")
    assert "At inference" not in written(build(full("a"), list(GROUPS)), "markdown")


def test_formats_are_found_by_their_files_extension() -> None:
    def of(name: str) -> str:
        options = Namespace(format=None, output=Path(name))
        return chosen_format(options, formats.extensions())

    names = ("b.csv", "b.md", "b.json", "b.tex", "b.html", "b.txt")
    found = [of(name) for name in names]
    assert found == ["csv", "markdown", "json", "latex", "html", "table"]
    assert set(found) | {"tidy"} == set(formats.names())
    with pytest.raises(UsageError, match=r"end it in \.csv, \.html"):
        of("board.doc")
    for name in formats.names():
        assert (formats.load(name).__doc__ or "").endswith(".")


@pytest.mark.parametrize("form", ["markdown", "latex", "html", "table"])
def test_boards_of_one_comparison_in_two_folders_are_told(form: str) -> None:
    text = written(build(full("a"), list(GROUPS)) * 2, form)
    assert "petlbench merge joins them" in " ".join(text.split())
