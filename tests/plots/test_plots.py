"""Every figure: found by its name, readable, repeatable; bad input is told."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import pytest
import synthetic
from conftest import CLI

from petlbench import plots
from petlbench.errors import UsageError
from petlbench.results import Results
from petlbench.statistics.judge import judge
from plots.drawing import (
    LONG,
    SHARES,
    SHOTS,
    TASKS,
    assert_inside_and_apart,
    drawn,
    peek,
    results_of,
    sweep,
    texts,
)

OWN_NAMES = "params-vs-accuracy"  # may wrap and move names; its own test looks at them
FEWEST = {"critical-difference": 3}  # methods

Comparison = Callable[..., Results]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    """Of a kind of figure: one that has what it shows."""

    @cache
    def made(
        methods: tuple[str, ...], tasks: tuple[tuple[str, str], ...], retrieval: bool
    ) -> Results:
        found = synthetic.records(
            methods, dict(tasks), 2, images=60, retrieval=retrieval, search=4, peek=True
        )
        return synthetic.results(found, synthetic.write(tmp_path_factory.mktemp("runs"), found))

    def fitting(kind: str, methods: list[str], tasks: Sequence[tuple[str, str]] = SHOTS) -> Results:
        for retrieval in (False, True):
            results = made(tuple(methods), tuple(tasks), retrieval)
            if getattr(plots.load(kind), "fits", lambda _: True)(results):
                return results
        raise AssertionError(f"no comparison fits {kind}")

    return fitting


def test_kinds_are_files() -> None:
    known = {"params-vs-accuracy", "accuracy-vs-shots", "accuracy-vs-trials", "peek-gap"}
    assert known < set(plots.names())
    assert all(plots.load(kind).__doc__ for kind in plots.names())


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *((kind, ".svg") for kind in plots.names()),
        *((OWN_NAMES, suffix) for suffix in (".png", ".pdf", ".PNG")),  # they draw the same figure
    ],
)
def test_files_repeat_byte_for_byte(
    tmp_path: Path, comparison: Comparison, kind: str, suffix: str
) -> None:
    results = comparison(kind, ["a", "b", "c"])
    again = dataclasses.replace(results, records=dict(reversed([*results.records.items()])))
    paths = [tmp_path / "new" / f"{name}{suffix}" for name in "ab"]
    for each, path in zip((results, again), paths, strict=True):
        plots.draw(kind, each, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second and len(first) > 5000
    assert sorted(tmp_path.joinpath("new").iterdir()) == paths


@pytest.mark.parametrize("style", ["screen", "paper"])
@pytest.mark.parametrize(
    ("kind", "methods", "tasks"),
    [
        pytest.param(kind, methods, tasks, id=f"{kind}-{len(methods)}-{len(tasks)}")
        for kind in plots.names()
        for methods, tasks in (
            (["a"], SHOTS),
            (["a", "b", "c"], SHOTS),
            (LONG, SHOTS),
            (LONG, SHARES),
        )
        if kind != OWN_NAMES and len(methods) >= FEWEST.get(kind, 1)
    ],
)
def test_all_texts_are_inside_and_apart(
    comparison: Comparison,
    kind: str,
    methods: list[str],
    tasks: list[tuple[str, str]],
    style: str,
) -> None:
    figure = plots.draw(kind, comparison(kind, methods, tasks), style=style)
    assert_inside_and_apart(figure)
    named = " ".join("".join(text.get_text().split()) for text in texts(figure))  # wrapped anywhere
    assert all("".join(method.split()) in named for method in methods)


def test_bad_input(tmp_path: Path) -> None:
    results = results_of(sweep(["lora", "vpt"], TASKS), TASKS)
    kind = "params-vs-accuracy"
    with pytest.raises(UsageError, match=r"\.png, \.pdf, \.svg"):
        plots.draw(kind, results, tmp_path / "plot.jpg")
    with pytest.raises(UsageError, match=r"unknown style of plots 'papr'\. Did you mean paper"):
        plots.draw(kind, results, tmp_path / "plot.png", style="papr")
    with pytest.raises(UsageError, match="unknown option of params-vs-accuracy 'colour'"):
        plots.draw(kind, results, tmp_path / "plot.png", colour="red")
    row = dataclasses.replace(results.board.rows[0], rank=None)
    board = dataclasses.replace(results.board, rows=(row,))
    with pytest.raises(UsageError, match="petlbench run"):
        plots.draw(kind, dataclasses.replace(results, board=board), tmp_path / "plot.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        plots.draw(kind, results, str(tmp_path / "file" / "plot.png"))
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        plots.draw(kind, results, tmp_path / "plot.png")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "plot.png"}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("accuracy-vs-trials", "--search 20"),
        ("default-vs-tuned", "--search 20"),
        ("peek-gap", "--report-peek"),
        ("peak-gap", "Did you mean peek-gap"),
    ],
)
def test_nothing_of_that_kind_to_draw(kind: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        drawn(kind, sweep(["lora"], TASKS), TASKS)


def test_only_comparisons_that_have_what_is_drawn_are_chosen_from() -> None:
    plain = results_of(sweep(["lora"], TASKS), TASKS)
    other = results_of(sweep(["lora"], TASKS, peek=lambda value: peek(value)), TASKS)
    shots = results_of(sweep(["lora"], SHOTS), SHOTS)
    found = [plain, other, shots]
    assert plots.candidates("peek-gap", found) == [other]
    assert plots.candidates("params-vs-accuracy", found) == found
    assert plots.candidates("default-vs-tuned", found) == found
    assert plots.candidates("accuracy-vs-shots", found) == [shots]


def test_the_command_passes_on_what_was_chosen(cli: CLI) -> None:
    synthetic.write(Path("results/made"), synthetic.records(["lora", "vpt"], 2, 2, images=30))
    told = cli("plot", "heat-map", "--set", "baseline=vpt", "--style", "paper", "-o", "a.svg")
    assert told.out == "wrote a.svg\n" and "minus" in Path("a.svg").read_text()
    cli("plot", "heat-map", "--set", "baseline=linear").refused("unknown baseline 'linear'")
    cli("plot", "heat-map", "--set", "x=parameters").refused("option of heat-map 'x'", "baseline")
    cli("plot", "heat-map", "--set", "baseline").refused("NAME=VALUE")
    told = cli("plot", "rank-distribution", "--set", "over_tasks=true", "-o", "b.svg")
    assert told.out == "wrote b.svg\n" and "of tasks, seeds and" in Path("b.svg").read_text()
    cli("plot", "rank-distribution", "--set", "over_tasks=1").refused("over_tasks=true")
    cli("plot", "heat-map", "--style", "poster").refused("unknown style of plots 'poster'", "paper")


def test_the_command_refuses_what_it_cannot_draw_before_it_reads(cli: CLI) -> None:
    reading = ("plot", "heat-map", "--results", "nowhere")
    cli(*reading, "--style", "poster").refused("unknown style of plots 'poster'")
    cli(*reading, "--set", "x=y").refused("unknown option of heat-map 'x'")
    cli(*reading, "-o", "plot.jpg").refused("cannot draw to plot.jpg")
    cli(*reading).refused("no results in nowhere")


@pytest.mark.parametrize("kind", ["params-vs-accuracy", "rank-distribution", "groups"])
def test_a_dollar_sign_in_a_name_is_one(kind: str, tmp_path: Path) -> None:
    names = ["lora", "own(note=x_é*$%)", "a(x=$1, y=$2)"]
    found = synthetic.records(names, 3, 2, images=60)
    results = judge(synthetic.results(found, synthetic.write(tmp_path, found)))
    assert any(row.letters for row in results.board.rows)
    figure = plots.draw(kind, results)
    figure.canvas.draw()
    shown = [text for text in texts(figure) if "$" in text.get_text()]
    for name in names:
        (row,) = (row for row in results.board.rows if row.method == name)
        written = [t for t in shown if t.get_text().replace("\n", " ").startswith(escaped(name))]
        assert written and row.letters
        for text in written:
            # what matplotlib reads as mathematics is the raised letters alone
            math = re.sub(r"\\\$", "", text.get_text()).split("$")
            assert text.get_parse_math() and len(math) == 3 and math[1].startswith("^{")


def escaped(name: str) -> str:
    return name.replace("$", r"\$")


def test_a_dollar_sign_elsewhere_is_one() -> None:
    names = ["a$b$", "c", "d"]
    for kind in ("critical-difference", "heat-map"):
        figure = plots.draw(kind, synthetic.results(synthetic.records(names, 3, 2, images=60)))
        shown = [text for text in texts(figure) if "a$b$" in text.get_text()]
        assert shown and not any(text.get_parse_math() for text in shown)
