"""Data is only ever data: nothing in it runs, and no name in it is markup where it is shown."""

from __future__ import annotations

import ast
import csv
import io
import json
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import synthetic
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import petlbench
from petlbench import adapted, cli, formats, method, report, results, spreadsheet
from petlbench.errors import UsageError
from petlbench.formats import latex, markdown
from petlbench.method import folder
from petlbench.results import Results
from petlbench.spec import identify
from petlbench.wording import visible

# -- nothing that is data runs code ---------------------------------------------------------------

PACKAGE = Path(petlbench.__file__).parent
FILES = sorted([*PACKAGE.rglob("*.py"), *folder().rglob("*.py")])
UNPICKLING = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "marshal", "shelve", "yaml"}
CALLS = {"eval", "exec", "compile", "read_pickle", "system", "popen", "trust_remote_code"}
# what loads safely if it is told to -> how it is told
TOLD = {
    "torch.load": ("weights_only", True),
    "np.load": ("allow_pickle", False),
    "numpy.load": ("allow_pickle", False),
}
# the one place where code is run that a person wrote: a method file named on the command line
ALLOWED = {("method.py", "exec_module")}


def dangers(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (n.name for n in node.names if n.name.split(".")[0] in UNPICKLING)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in UNPICKLING:
            yield str(node.module)
        elif isinstance(node, ast.Call):
            yield from dangers_of_call(node)


def dangers_of_call(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {key.arg: getattr(key.value, "value", None) for key in call.keywords}
    if name in CALLS or name in {"os.system", "os.popen", "joblib.load"}:
        yield name
    if name.endswith((".read_pickle", ".exec_module", ".unsafe_load")):
        yield name.rpartition(".")[2]
    if "trust_remote_code" in given or given.get("shell"):
        yield name
    if name in TOLD:
        argument, value = TOLD[name]
        if given.get(argument) is not value:
            yield f"{name} without {argument}={value}"


def test_nothing_that_is_data_runs_code() -> None:
    assert len(FILES) > 100
    found = {
        (file.name, danger)
        for file in FILES
        for danger in dangers(ast.parse(file.read_text(encoding="utf-8")))
    }
    assert found == ALLOWED


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from yaml import load",
        "eval(x)",
        "torch.load(file)",
        "torch.load(file, weights_only=False)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "pd.read_pickle(file)",
        "subprocess.run(x, shell=True)",
        "AutoModel.from_pretrained(x, trust_remote_code=True)",
    ],
)
def test_what_would_run_code_is_found(text: str) -> None:
    assert list(dangers(ast.parse(text)))


@pytest.mark.parametrize("source", [None, "0" * 64])
@pytest.mark.parametrize("name", ["./evil.py", "evil.py", "{here}/evil.py"])
def test_a_file_that_a_record_names_is_not_run(
    tmp_path: Path, name: str, source: str | None
) -> None:
    name = name.format(here=tmp_path)
    (tmp_path / "evil.py").write_text("raise SystemExit('the code of a stranger')")
    (record,) = synthetic.records(["lora"], 1, 1, images=10)
    record["spec"]["method"] |= {"name": name, "label": name, "source": source}
    record["spec"]["backbone"]["checkpoint"] = "random"
    record["key"], record["fingerprint"] = identify(record["spec"])
    folder = synthetic.write(tmp_path / "results", [record])
    found, problems = results.load(folder)
    assert not problems and [row.method for row in found[0].board.rows] == [name]
    told = json.dumps(record["spec"])
    stored = {"head.bias": np.zeros(2, np.float32)}
    safetensors.numpy.save_file(stored, folder / "x.safetensors", {"spec": told})
    shutil.copy(folder / "x.safetensors", folder / "artifacts" / f"{record['key']}.safetensors")
    for run in (record["key"], folder / "x.safetensors"):
        with pytest.raises(UsageError, match="is a method of your own: say where its file is"):
            adapted.load_adapted(run, folder)
    with pytest.raises(UsageError, match="is a method of your own: say where its file is"):
        adapted.untrained(record)
    assert name in report.render(found)


READING = (
    ["leaderboard", "--results", "results"],
    ["compare", "linear", "{name}", "--results", "results"],
    ["list", "runs"],
    ["status", "--results", "results"],
    ["cite", "results"],
    ["report", "-o", "page.html"],
    ["plot", "params-vs-accuracy", "-o", "figure.svg"],
    ["merge", "results", "--into", "merged"],
    ["export", "--run", "{key}"],
    ["predict", "--run", "{key}", "picture.png"],
    ["reproduce", "{name}", "--suite", "evil"],
    ["match", "--parameters", "2M"],
)
LEAVES_A_MARK = "import pathlib; pathlib.Path({!r}).write_text('')"


@pytest.mark.parametrize("name", ["./evil.py", "evil", "theirs", "evil:x"])
def test_no_command_that_reads_results_runs_what_they_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Files beside the results, modules that could be imported, and methods of other packages."""
    mark = tmp_path / "mark"
    code = LEAVES_A_MARK.format(str(mark))
    for file in ("evil.py", "results/evil.py", "evil_package/__init__.py"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(code)
    shutil.copy(tmp_path / "evil.py", tmp_path / "evil_package" / "method.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    point = EntryPoint("theirs", "evil_package.method:Mine", method.ENTRY_POINTS)
    monkeypatch.setattr(method, "installed", lambda: {"theirs": point})
    (tmp_path / "picture.png").write_bytes(b"")
    found = synthetic.records(["lora", "linear"], 1, 1, images=10)
    found[0]["spec"]["method"] |= {"name": name, "label": name, "source": "0" * 64}
    found[0]["spec"]["method"]["preset"] = {"name": "./evil.py", "chosen": "./evil.py"}
    for record in found:
        record["spec"]["protocol"]["name"] = record["spec"]["suite"] = "evil"
        record["spec"]["backbone"]["name"] = "evil"
        record["key"], record["fingerprint"] = identify(record["spec"])
    synthetic.write(tmp_path / "results", found, keep=False)
    for words in READING:
        with pytest.raises(SystemExit):
            cli.main([word.format(name=name, key=found[0]["key"]) for word in words])
        assert not mark.exists(), words
    (tmp_path / "marked.py").write_text(code)  # and named, it is run
    with pytest.raises(SystemExit):
        cli.main(["check", "./marked.py"])
    assert mark.exists()


# -- names are shown as they are ------------------------------------------------------------------

MARKUP = "<>&\"'`*_[]()!#~|\\{}$%^=+-:;/.0123 \n\t"
HIDDEN = "\x00\x07\x08\x1b\r\x7f\x85\x9b\u200b\u202e\u2066\u2069\u2028\ufeff\U000e0041"
texts = st.text(
    st.one_of(st.sampled_from(MARKUP + HIDDEN), st.characters(exclude_categories=["Cs"])),
    min_size=1,
    max_size=40,
).filter(str.strip)
NASTY = (
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://example.com/x.png)",
    "convpass[released](scale=0.1)",
    "[a]: https://example.com",
    "<https://example.com>",
    "a|b\\|c\\",
    "**bold** _it_ __b__ `code` ~~gone~~ $x^2$",
    "&lt;b&gt; &amp; &#60;",
    "# heading",
    "12) list",
    "- list\n\n---\n\n> quote",
    r"\input{/etc/passwd} \write18{ls} % comment",
    "x }} {% raw %} {{ 7*7 }}",
    "</table></script><img src=x onerror=alert(1)>",
    "\x1b[2J\x1b[31mred\x1b]0;title\x07 \x9b1A",
    "all is well\rerror\x08\x08",
    "safe\u202egnp.exe\u2066 zero\u200bwidth \x00",
    "[bold red]markup[/] :warning: \\[dim]",
    "=cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd",
    "-2+3",
    "'=1",
    "a--b ``quoted'' ?`",
    "NA",
)


class Shown(HTMLParser):
    """What a page shows: the text of every cell and item, and every tag."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag in ("td", "th", "li", "p"):
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)


def one_line(text: str) -> str:
    """As it is shown where ends of lines do not count."""
    return " ".join(visible(text).split())


def shown(page: str) -> tuple[list[str], set[str]]:
    found = Shown(page)
    return [one_line(cell) for cell in found.cells], found.tags


def rendered(text: str) -> str:
    """Markdown as HTML, with HTML in it let through."""
    return str(MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(text))


def comparison(name: str) -> Results:
    """Everything in it that has a name is called `name`."""
    found = synthetic.records(["lora", "linear"], {name: name}, 1, images=10)
    for record in found:
        record["spec"]["protocol"]["name"] = name
        if record["spec"]["method"]["name"] == "lora":
            record["spec"]["method"] |= {"name": name, "label": name}
    return synthetic.results(found)


def is_formula(cell: str) -> bool:
    """What a spreadsheet takes for one: OWASP's list, without numbers."""
    try:
        float(cell)
    except ValueError:
        return cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    return False


def with_examples(test):  # type: ignore[no-untyped-def]
    for text in NASTY:
        test = example(text)(test)
    return test


@with_examples
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(texts)
def test_names_in_every_format(name: str) -> None:
    found, plain = [comparison(name)], one_line(name)
    written = {form: formats.write(found, form) for form in formats.names()}
    assert written.keys() >= {"csv", "html", "json", "latex", "markdown", "table", "tidy"}

    cells, tags = shown(written["html"])
    assert cells.count(plain) >= 3  # the method, the task and its group
    assert tags <= {
        *("html", "head", "meta", "title", "style", "body", "table", "caption", "thead", "tbody"),
        *("tr", "th", "td", "b", "small", "ul", "li", "p"),
    }
    cells, tags = shown(rendered(written["markdown"]))
    assert cells.count(plain) >= 3
    assert tags <= {"table", "thead", "tbody", "tr", "th", "td", "p", "strong", "ul", "li"}

    assert written["latex"].count(latex.escape(name)) >= 3
    assert written["latex"].count(r"\begin{") == written["latex"].count(r"\end{") == 2

    for form in ("csv", "tidy"):
        read = list(csv.DictReader(io.StringIO(written[form], "")))
        assert name in [spreadsheet.unguarded(row["method"]) for row in read]
        assert not any(is_formula(cell) for row in read for cell in row.values())
    assert name in found[0].frame()["method"].tolist()
    assert name in [row["method"] for row in json.loads(written["json"])[0]["rows"]]


@with_examples
@given(texts)
def test_markdown_reads_as_it_was_written(text: str) -> None:
    """In a paragraph, an item and a cell."""
    escaped, plain = markdown.escaped(text), one_line(text)
    for page, tag in ((escaped, {"p"}), (f"- {escaped}", {"ul", "li"})):
        cells, tags = shown(rendered(page))
        assert ("".join(cells), tags) == (plain, tag)
    table = "\n".join(markdown.line(row) for row in ([escaped, "b"], [":--", "--:"]))
    cells, tags = shown(rendered(table))
    assert cells == [plain, "b"] and tags == {"table", "thead", "tr", "th"}


@pytest.mark.parametrize("name", NASTY)
def test_names_in_the_report(name: str) -> None:
    page = report.render([comparison(name)], [name])
    plain = shown(report.render([comparison("mine")], ["mine"]))[1]
    cells, tags = shown(page)
    assert one_line(name) in cells
    assert tags == plain
