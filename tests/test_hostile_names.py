"""Foreign names where people read them: on a terminal, in figures, in BibTeX, in spreadsheets."""

from __future__ import annotations

import ast
import csv
import io
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import synthetic
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.mathtext import MathTextParser
from matplotlib.text import Text
from test_safety import HIDDEN, NASTY, PACKAGE, is_formula, texts

import petlbench
from petlbench import cite, cli, leaderboard, plots, progress, report, screen, spreadsheet
from petlbench.commands import _shared as shared
from petlbench.formats import table
from petlbench.plots._base import lettered, styled
from petlbench.results import Results
from petlbench.spec import identify
from petlbench.statistics.judge import judge
from petlbench.store import Store
from petlbench.wording import visible

ANY = st.text(st.one_of(st.sampled_from(HIDDEN), st.characters()), max_size=30)


def hidden(text: str) -> set[str]:
    """What acts on a terminal, or is not seen."""
    kinds = {"Cc", "Cf", "Cs", "Zl", "Zp"}
    return {sign for sign in text if unicodedata.category(sign) in kinds} - {"\n", "\t"}


Runs = list[tuple[dict[str, Any], dict[str, Any]]]


def named(names: Sequence[str], **how: Any) -> Runs:
    """Records of methods with these names, on tasks and in groups with these; and predictions."""
    chosen = [f"method_{i}" for i in range(len(names))]
    tasks = {f"task_{i}": "group" for i in range(3)}
    made = synthetic.records(chosen, tasks, 2, images=40, **how)
    found = [(record, synthetic.predictions(record)) for record in made]
    for record, _ in found:
        spec = record["spec"]
        name = names[chosen.index(spec["method"]["name"])]
        other = names[int(spec["task"].partition("_")[2])]
        spec["method"] |= {"name": name, "label": name, "config": {name: name}}
        spec |= {"task": f"{spec['task']} {other}", "group": other, "suite": names[0]}
        spec["protocol"]["name"] = spec["backbone"]["name"] = names[-1]
        record["environment"] = {name: name}
        record["key"], record["fingerprint"] = identify(spec)
    return found


def write(folder: Path, runs: Runs) -> Store:
    store = Store(synthetic.write(folder, [record for record, _ in runs], keep=False))
    for record, arrays in runs:
        np.savez(store.artifacts / f"{record['key']}.predictions.npz", **arrays)
    return store


# -- one place where characters are made visible --------------------------------------------------


@given(ANY)
def test_every_character_is_seen(text: str) -> None:
    shown = visible(text)
    assert not hidden(shown) and visible(shown) == shown
    assert "".join(shown.split()).isprintable()
    if not hidden(text) and text.isprintable():
        assert shown == text


def test_as_python_would_write_it() -> None:
    text = "a\x1b[2J\r\u202eb\u200b\x00\ud800\u2028"
    assert visible(text) == r"a\x1b[2J\r\u202eb\u200b\x00\ud800\u2028"
    assert visible("é ü\u00a0\u3000日本\n\t") == "é ü\u00a0\u3000日本\n\t"


def test_only_one_place_speaks_to_the_terminal() -> None:
    """A `print` or a console of rich elsewhere would let through what a name holds."""
    speaking = {}
    for file in PACKAGE.rglob("*.py"):
        tree = ast.parse(file.read_text(encoding="utf-8"))
        calls = [ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)]
        found = {call for call in calls if call in ("print", "Console", "rich.print")}
        found |= {
            call for call in calls if call.endswith((".stdout.write", ".stderr.write", ".Console"))
        }
        if found and file.parent.name != "mini":  # scripts that made what is embedded
            speaking[file.name] = found
    assert speaking == {"_shared.py": {"print"}, "cli.py": {"print"}, "screen.py": {"Console"}}


@given(ANY)
def test_a_console_shows_every_character(text: str) -> None:
    from rich.cells import cell_len
    from rich.markup import escape
    from rich.table import Table

    shown = Table(title=escape(text))
    shown.add_column(escape(text), no_wrap=True)
    shown.add_row(escape(text))
    stream = io.StringIO()
    console = screen.console(file=stream, force_terminal=True, width=2000)
    console.print(shown)
    console.print(escape(text), style="dim")
    plain = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert not hidden(plain)
    # rich gives no room in a cell to a text that is nothing but a colour of the sign before
    if not {"\n", "\t"} & set(text) and cell_len(visible(text)):
        assert "".join(plain.split()).count("".join(visible(text).split())) >= 4


def test_no_picture_in_place_of_a_name() -> None:
    assert ":warning:" in table.text(lambda console: console.print(":warning:"))


# -- commands -------------------------------------------------------------------------------------

ODD = [name for name in NASTY if hidden(name)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Results of names that hold what acts on a terminal, a failure, a run in flight, a ruin."""
    assert len(ODD) >= 3
    runs = named(ODD)
    failed, _ = runs.pop()
    failed |= {"status": "failed", "error": {"type": "E\x1b[31m", "message": "\x1b]0;title\x07"}}
    store = write(tmp_path / "results", runs)
    store.failed.mkdir()
    (store.failed / f"{failed['key']}.json").write_text(json.dumps(failed))
    store.claims.mkdir(exist_ok=True)
    progress.Reporter(store.claims / "0.progress", ODD[0])("epoch 1/2 \x1b[1A")
    (store.records / "b\x1b[2Jad.json").write_text("{}")
    return store.folder


READ = ("--results", "{folder}")


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ["leaderboard", *READ]),
        *((0, ["leaderboard", "--format", f, *READ]) for f in ("html", "latex", "markdown")),
        (0, ["compare", *ODD[:2], *READ]),
        (2, ["match", "--parameters", "1", *READ]),
        (0, ["list", "runs", *READ]),
        (0, ["status", *READ]),
        (0, ["cite", "{folder}"]),
        (0, ["report", "-o", "page\x1b[2J.html", *READ]),
        (0, ["plot", "groups", "-o", "figure\x1b[2J.svg", *READ]),
        (2, ["plot", "heat-map", "--set", "baseline=\x1b[2J", *READ]),
        (2, ["predict", "\x1b[2J.png", "--run", "0"]),
        (2, ["list", "\x1b[2J"]),
        (2, ["run", "--methods", "\x1b[2J"]),
        (2, ["run", "--plan", "\x1b[2J.toml"]),
    ],
    ids=lambda value: " ".join(value[:2]).replace("\x1b", "") if isinstance(value, list) else None,
)
def test_commands(
    folder: Path, capsys: pytest.CaptureFixture[str], code: int, words: list[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([word.format(folder=folder) for word in words])
    told = capsys.readouterr()
    assert ended.value.code == code, told
    assert not hidden(told.out + told.err)
    assert r"\x1b" in told.out + told.err


def test_progress_of_others(tmp_path: Path) -> None:
    progress.Reporter(tmp_path / "a.progress", "lora\x1b[2J")("epoch 1/9 \x1b")
    assert progress._read(tmp_path, 0) == {"a.progress": (r"lora\x1b[2J: epoch 1/9 \x1b", 1, 9)}


def test_what_is_piped_is_kept(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that the shell writes has the true names."""
    with pytest.raises(SystemExit):
        cli.main(["leaderboard", "--results", str(folder), "--format", "csv"])
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out, ""))
    assert {spreadsheet.unguarded(row["method"]) for row in rows} == set(ODD)


def test_what_is_shown_of_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for terminal, told in ((True, "a,\\x1b[2J\n"), (False, "a,\x1b[2J\n")):
        monkeypatch.setattr(sys.stdout, "isatty", lambda terminal=terminal: terminal)
        shared.output("a,\x1b[2J\n", None)
        assert capsys.readouterr().out == told


def test_a_spinner() -> None:
    with shared.status("[red]\x1b[2J") as spinner:
        assert str(spinner.renderable.text) == r"[red]\x1b[2J"


def test_warnings(folder: Path) -> None:
    with pytest.warns(UserWarning) as told:
        frame = petlbench.load_results(folder)
    assert set(frame["method"]) == set(ODD)
    assert told and not any(hidden(str(each.message)) for each in told)


# -- spreadsheets ---------------------------------------------------------------------------------


@given(st.one_of(ANY, st.text("'=+-@\t\r01.e", max_size=6)))
def test_a_text_is_no_formula_and_comes_back(text: str) -> None:
    written = spreadsheet.write([text], [{text: text}])
    cells = [cell for row in csv.reader(io.StringIO(written, "")) for cell in row]
    assert not any(map(is_formula, cells))
    assert list(map(spreadsheet.unguarded, cells)) == [text, text] or not text


@given(st.one_of(st.floats(allow_nan=False, allow_infinity=False), st.integers()))
def test_a_number_stays_one(number: float) -> None:
    for cell in (number, str(number)):
        assert spreadsheet.write(["a"], [{"a": cell}]) == f"a\n{number}\n"


# -- figures --------------------------------------------------------------------------------------

SIGNS = ["$\\frac$", "_hidden", "a\\", "$x$ $", "\\$", "<b>&amp;--></b>", "two\nlines", " "]
FIGURES = [*ODD, *SIGNS]


def figure_of(kind: str, folder: Path) -> tuple[Results, list[str]]:
    runs = named(FIGURES, search=3, peek=True, retrieval=kind == "recall-curves")
    if kind == "accuracy-vs-shots":
        for record, _ in runs:
            place, name = record["spec"]["task"].split(" ", 1)
            shots = 1 + int(place.partition("_")[2])
            record["spec"] |= {"task": f"{name.replace('@', '')}@{shots}", "group": f"{shots} $_x^"}
            record["key"], record["fingerprint"] = identify(record["spec"])
    store = write(folder, runs)
    found = synthetic.results([record for record, _ in runs], store.folder)
    return (judge(found) if kind == "groups" else found), FIGURES


@pytest.mark.parametrize("kind", plots.names())
def test_figures(kind: str, tmp_path: Path) -> None:
    results, names = figure_of(kind, tmp_path / "results")
    figure = plots.draw(kind, results, tmp_path / "figure.svg")
    ElementTree.parse(tmp_path / "figure.svg")
    with styled("screen"):
        shown = [text for text in figure.findobj(Text) if text.get_visible()]
    assert not any(hidden(text.get_text()) for text in shown)
    said = ["".join(text.get_text().replace(r"\$", "$").split()) for text in shown]
    for name in names:
        plain = "".join(visible(name).replace(r"\$", "$").split())
        assert any(plain in each for each in said), (name, kind)


@given(texts)
def test_mathematics_in_a_name_is_text(name: str) -> None:
    """Only the raised letters behind it are."""
    (row,) = leaderboard.rank(synthetic.records(["lora"], 1, 1, images=5)).rows
    written = lettered(visible(name), replace(row, letters="ab"))
    _, *math, after = re.sub(r"\\\$", "", written).split("$")
    assert math == [r"^{\mathrm{ab}}"] and after == ""
    MathTextParser("path").parse(written)


# -- the report and BibTeX ------------------------------------------------------------------------


def test_the_report() -> None:
    found = synthetic.results([record for record, _ in named(NASTY)])
    page = report.render([found], ["\x1b\u202e"])
    scripts = re.compile(r"<script type=\"(?!application/json).*?</script>", re.DOTALL)
    assert not hidden(scripts.sub("", page))
    charts = re.findall(r"<script type=\"application/json\".*?>(.*?)</script>", page, re.DOTALL)
    assert charts and not any(hidden(_strings(json.loads(chart))) for chart in charts)
    assert r"\x1b\u202e" in page


def _strings(part: Any) -> str:
    if isinstance(part, dict):
        return "".join(map(_strings, [*part, *part.values()]))
    return "".join(map(_strings, part)) if isinstance(part, list) else str(part)


@given(texts)
def test_a_name_is_no_bibtex(name: str) -> None:
    """BibTeX knows no comments: an @ anywhere begins an entry, and @preamble is LaTeX that runs."""
    (record,) = synthetic.records([f'@preamble{{"\\input x"}} {name}'], {name: name}, 1, images=5)
    record["spec"]["backbone"]["name"] = name
    found = cite.Citations()
    cite.of_records(found, [record])
    told = found.text()
    entries = "".join(found.entries.values())
    assert told.count("@") == entries.count("@") and not hidden(told)


def test_metrics_have_names_that_can_be_written(tmp_path: Path) -> None:
    (record,) = synthetic.records(["lora"], 1, 1, images=5)
    record["test"]["metrics"]["\ud800"] = 0.5
    _, problems = Store(synthetic.write(tmp_path / "results", [record])).load()
    assert len(problems) == 1 and "name in test.metrics which is not text" in problems[0]
