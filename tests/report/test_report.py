"""The page of the report: it has everything, escaped, and is the same each time."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st

from petlbench import report
from petlbench.cli import main
from petlbench.errors import UsageError
from petlbench.formats import _text
from petlbench.leaderboard import Record, Score
from petlbench.report import charts, section
from petlbench.results import Results
from petlbench.statistics.judge import judge
from petlbench.wording import visible

NASTY = "<script>alert(1)</script> \"'&amp; <img src=x onerror=alert(1)>"


class Page(HTMLParser):
    """Visible text, tables as lists of rows of cells, and the data of charts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.charts: list[Any] = []
        self.text = ""
        self._cell: list[str] | None = None
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src") and value]
        self.ids += [found["id"]] if found.get("id") else []
        self._inside = "chart" if found.get("class") == "data" else tag
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self._cell = []

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""
        if tag in ("td", "th") and self._cell is not None:
            self.tables[-1][-1].append("".join(self._cell).strip())
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._inside == "chart":
            self.charts.append(json.loads(data))
        elif self._inside not in ("script", "style"):
            self.text += data
            if self._cell is not None:
                self._cell.append(data)


def exit_code(arguments: list[str]) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


def page_of(*found: Results, **options: Any) -> Page:
    return Page(report.render(found, **options))


def source(chart: Any, column: str, of: str = "method") -> list[Any]:
    """That column of the data source which has a column `of` this name."""
    stack = [chart]
    while stack:
        part = stack.pop(0)
        if isinstance(part, dict):
            if part.get("name") == "ColumnDataSource":
                data = dict(part["attributes"]["data"]["entries"])
                if of in data:
                    return list(data[column])
            stack += part.values()
        elif isinstance(part, list):
            stack += part
    raise AssertionError(f"no source has {of}")


def rename(records: list[Record], old: str, new: str, source: str | None = "5" * 64) -> None:
    for record in records:
        if record["spec"]["method"]["name"] == old:
            found = record["spec"]["method"]
            record["spec"]["method"] = {**found, "label": new, "name": "mine", "source": source}


@pytest.fixture(scope="module")
def results() -> Results:
    return judge(synthetic.results(synthetic.records(4, 5, 3, images=50)))


@pytest.fixture(scope="module")
def page(results: Results) -> Page:
    return page_of(results)


def test_the_leaderboard_has_every_column_and_row(page: Page, results: Results) -> None:
    header, *rows = page.tables[0]
    board = results.board
    columns = _text.columns(board)
    assert set(header) == {column.header for column in columns}
    assert len(header) == len(columns)
    place = header.index("Method")
    assert [row[place] for row in rows] == [row.method for row in board.rows]
    for column in columns:
        shown = [row[header.index(column.header)] for row in rows]
        assert shown == [str(cell) for cell in column.cells], column.header


def test_every_number_names_its_records(page: Page, results: Results) -> None:
    for row in results.board.rows:
        for task, keys in row.runs.items():
            lines = [line for table in page.tables for line in table if line[0].split()[0] == task]
            text = next(line[-1] for line in lines if keys[0] in line[-1])
            for key in keys:
                test = results.records[key]["test"]
                seed = results.records[key]["spec"]["seed"]
                assert f"{seed}: {100 * test['correct'] / test['total']:.1f} {key}" in text
    listed = {line[0] for line in page.tables[-1][1:]}
    assert listed == set(results.records)


def test_methods_protocol_and_environment_are_told(page: Page, results: Results) -> None:
    assert "W' = W + (alpha / rank) B A" in page.text  # the equation of LoRA
    assert "@inproceedings{hu2022lora" in page.text
    cells = {tuple(line) for table in page.tables for line in table}
    for field, value in results.board.protocol.items():
        assert (field, str(value)) in cells
    assert results.board.fingerprint in page.text
    assert ("device", "cpu") in cells and ("git_commit", "not set") in cells
    assert results.board.judged in page.text


def test_settings_that_differ_between_tasks_are_told_with_their_tasks() -> None:
    found = synthetic.records(["lora"], 2, 1, images=20)
    for rank, record in enumerate(found, 1):
        record["spec"]["method"] = {**record["spec"]["method"], "config": {"rank": rank, "s": 1}}
    (method,) = section.Section(synthetic.results(found), 1).methods
    first, second = (record["spec"]["task"] for record in found)
    assert method.settings == (("rank", f"1 on {first}; 2 on {second}"), ("s", "1"))


def test_links_stay_in_the_page_and_lead_somewhere(page: Page) -> None:
    assert page.links and all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_the_policy_allows_no_request_and_exactly_the_scripts_of_the_page(results: Results) -> None:
    text = report.render([results])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy.startswith("default-src 'none';")
    assert "unsafe-eval" not in policy and "http" not in policy
    scripts = re.findall(r'<script type="(?!application/json)[^"]*">(.*?)</script>', text, re.S)
    assert len(scripts) == 3
    assert all(report._hash(script) in policy for script in scripts)


def test_the_same_records_give_the_same_bytes(results: Results) -> None:
    assert report.render([results]) == report.render([results])


def test_what_comes_from_records_is_escaped() -> None:
    found = synthetic.records(["lora", "linear"], {NASTY: NASTY}, 2, images=20)
    rename(found, "lora", NASTY)
    for record in found:
        record["environment"] = {"device": NASTY}
        record["spec"]["method"] = {**record["spec"]["method"], "config": {NASTY: NASTY}}
        record["spec"]["protocol"] = {**record["spec"]["protocol"], "note": NASTY}
    page = page_of(judge(synthetic.results(found)), problems=[NASTY], baseline=NASTY)
    assert page.tags.count("script") == 5 and "img" not in page.tags  # 3 and the charts' data
    assert page.text.count(NASTY) > 10
    assert "A user's file" in page.text


@settings(max_examples=8)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=60))
def test_any_name_of_a_method_is_shown_as_it_is(name: str) -> None:
    found = synthetic.records(["lora", "linear"], 2, 1, images=20)
    rename(found, "lora", name)
    page = page_of(synthetic.results(found))
    header, *rows = page.tables[0]
    assert visible(name) in [row[header.index("Method")] for row in rows]
    assert visible(name) in source(page.charts[0], "method")


def test_zero_parameters_have_a_place_left_of_the_logarithmic_axis(page: Page) -> None:
    chart = page.charts[0]
    methods, x = source(chart, "method"), source(chart, "x")
    place = dict(zip(methods, x, strict=True))
    assert 0 < place.pop("linear") < min(place.values())
    fill = dict(zip(methods, source(chart, "fill"), strict=True))
    params = dict(zip(methods, source(chart, "params"), strict=True))
    count = {name: int(text.split()[0].replace(",", "")) for name, text in params.items()}
    score = dict(zip(methods, source(chart, "y"), strict=True))
    for name in methods:
        beaten = any(
            count[other] <= count[name] and score[other] > score[name] for other in methods
        )
        assert (fill[name] == "#ffffff") == beaten


def test_names_on_the_front_have_room() -> None:
    places = {"a": (0, 0.5), "b": (10_000, 0.7), "c": (11_000, 0.705), "d": (12_000, 0.71)}
    places |= {"e": (1_000_000, 0.72), "f": (10_000_000, 0.9), "beaten": (2_000_000, 0.6)}
    board = synthetic.results(synthetic.records(list(places), 1, 1)).board
    rows = tuple(
        replace(row, trainable_parameters=places[row.method][0], ranking=Score(value, None))
        for row, value in ((row, places[row.method][1]) for row in board.rows)
    )
    settings = dict.fromkeys(places, "")
    chart = charts.params_vs_accuracy(replace(board, rows=rows), settings, "c")
    names, align = source(chart, "name", "name"), source(chart, "align", "name")
    # c stands between b and d, which are as near as two names may be
    sides = {"a": "left", "b": "right", "d": "left", "e": "right", "f": "right"}
    assert dict(zip(names, align, strict=True)) == sides


def test_the_map_shows_differences_to_the_baseline(results: Results) -> None:
    rows = {row.method: row.tasks for row in results.board.rows}
    for baseline in (None, "lora"):
        chart = page_of(results, baseline=baseline).charts[1]
        columns = [source(chart, name) for name in ("method", "x", "text", "shade")]
        shades = set()
        for method, (_, task), text, shade in zip(*columns, strict=True):
            score, base = rows[method][task], rows[baseline or "linear"][task]
            assert score and base
            difference = 100 * (score.mean - base.mean)
            assert text == f"{difference:+.1f}".replace("-", "−")
            shades.add(shade)
        assert len(shades) > 3


def test_an_unknown_baseline_is_refused(results: Results) -> None:
    with pytest.raises(UsageError, match="lora"):
        report.render([results], baseline="lara")


def test_comparisons_are_never_ranked_together(results: Results) -> None:
    other = judge(synthetic.results(synthetic.records(2, 3, 1, images=20, suite="another")))
    page = page_of(results, other)
    assert "suite: synthetic | another" in page.text
    boards = [table for table in page.tables if table[0][:1] == ["Rank"]]
    assert [len(board) - 1 for board in boards] == [4, 2]
    assert len(page.charts) == 4
    assert len(page.ids) == len(set(page.ids))


def test_what_failed_is_marked_and_told() -> None:
    found = synthetic.records(3, 3, 2, images=20)
    victim = found[0]
    victim |= {"status": "failed", "error": {"type": "OutOfMemory", "message": "", "trace": ""}}
    page = page_of(judge(synthetic.results(found)))
    name = victim["spec"]["method"]["label"]
    assert f"{name} (incomplete)" in page.text
    assert "1 method incomplete and therefore not ranked" in page.text
    assert "1 of them failed" in page.text
    (line,) = (line for line in page.tables[-1] if line[0] == victim["key"])
    assert line[4] == "failed: OutOfMemory"


@pytest.mark.parametrize(
    ("methods", "tasks", "seeds", "retrieval"),
    [(1, 1, 1, False), (1, 3, 2, False), (3, 1, 1, False), (3, 2, 2, True)],
)
def test_small_comparisons(methods: int, tasks: int, seeds: int, retrieval: bool) -> None:
    found = synthetic.records(methods, tasks, seeds, images=20, retrieval=retrieval)
    page = page_of(judge(synthetic.results(found)))
    assert len(page.tables[0]) == methods + 1
    if methods == 1:  # nothing to compare with: the scores themselves
        assert "+" not in "".join(source(page.charts[1], "text"))


def test_nothing_ranked() -> None:
    found = synthetic.records(1, 2, 1, images=20)
    found[0] |= {"status": "failed", "error": {"type": "E", "message": "", "trace": ""}}
    page = page_of(judge(synthetic.results(found)))
    assert "nothing is ranked" in page.text
    assert len(page.charts) == 1


def test_published_numbers_stand_apart() -> None:
    found = synthetic.records(["convpass", "lora"], {"cifar": "Natural"}, 1, suite="vtab-1k")
    page = page_of(synthetic.results(found))
    (table,) = (table for table in page.tables if table[0][:3] == ["method", "backbone", "source"])
    assert any(line[0].startswith("convpass") for line in table)
    assert "ranked neither with the measured ones" in page.text


def test_a_page_of_30_methods_19_tasks_and_5_seeds_stays_under_5_mb() -> None:
    found = synthetic.results(synthetic.records(30, 19, 5, images=20))
    text = report.render([judge(found)])
    assert len(text.encode()) < 5e6
    assert all(key in text for key in found.records)


def test_too_many_records_for_a_table_are_told(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert section.MOST_RECORDS >= 30 * 19 * 5
    monkeypatch.setattr("petlbench.report.section.MOST_RECORDS", 59)
    page = page_of(results)
    assert "all 60 records is left out" in page.text
    for key in results.records:
        assert key in page.text


def test_without_its_libraries_the_command_says_what_to_type(
    results: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "itables", None)
    monkeypatch.setitem(sys.modules, "itables.options", None)
    with pytest.raises(UsageError, match=re.escape("pip install 'petlbench[report]'")):
        report.render([results])


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = synthetic.write(tmp_path / "results", synthetic.records(2, 2, 1, images=20))
    (folder / "records" / "broken.json").write_text("{")
    options = ["report", "--results", str(folder), "-o"]
    assert exit_code([*options, str(tmp_path / "out.html")]) == 0
    out, err = capsys.readouterr()
    assert f"wrote {tmp_path / 'out.html'}" in out and "broken.json" in err
    page = Page((tmp_path / "out.html").read_text(encoding="utf-8"))
    assert "broken.json" in page.text and "95%" in page.text
    assert exit_code([*options, "out.pdf"]) == 2
    assert ".html" in capsys.readouterr().err
