"""Figures: what is drawn, that names never collide, and that files repeat byte for byte."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CLI
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from petlbench import cli as command_line
from petlbench.errors import UsageError
from petlbench.leaderboard import Leaderboard, Row, Score, build
from petlbench.plot import FIGURES, candidates, draw, params_vs_accuracy, pareto_front


def make_row(name: str, params: int, mean: float | None, std: float | None = 0.004) -> Row:
    score = None if mean is None else Score(mean, std)
    return Row(
        method=name,
        rank=None if mean is None else 1,
        complete=mean is not None,
        seeds=(0, 1, 2),
        mean_of_groups=score,
        ranking=score,
        mean_of_tasks=score,
        groups={"Natural": score},
        tasks={"digits": score},
        trainable_parameters=params,
        trainable_parameters_with_head=params,
        train_seconds=1.0,
        peak_bytes=None,
        stored_bytes=1,
        missing=(),
    )


def make_board(*rows: Row) -> Leaderboard:
    return Leaderboard(
        suite="mini",
        fingerprint="0123456789ab",
        backbone={"name": "vit_mini", "checkpoint": "ab" * 32, "image_size": 48},
        protocol={"name": "mini"},
        groups={"Natural": ("digits",)},
        seeds=(0, 1, 2),
        records=len(rows),
        rows=rows,
        notes=(),
    )


SIX = make_board(
    make_row("convpass", 82_000, 0.74),
    make_row("lora", 73_700, 0.72),
    make_row("adapter", 39_600, 0.70),
    make_row("full", 2_670_000, 0.69),
    make_row("vpt", 11_500, 0.66),
    make_row("linear", 0, 0.55, None),
    make_row("ssf", 4_000, None),
)


def crowd(count: int, spread: float) -> Leaderboard:
    rng = np.random.default_rng(count)
    rows = [
        make_row(f"method_{i}", int(160_000 * rng.uniform(1, 1.1)), 0.75 + rng.uniform(0, spread))
        for i in range(count)
    ]
    return make_board(*rows, make_row("linear", 0, 0.7), make_row("full", 85_800_000, 0.73))


def names(figure: Figure) -> list[Text]:
    return [text for text in figure.axes[0].texts if text.get_text()]


def plain(figure: Figure) -> str:
    return " ".join(text.get_text() for text in figure.texts)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_pareto_front_against_brute_force(points: list[tuple[int, int]]) -> None:
    def beats(a: tuple[int, int], b: tuple[int, int]) -> bool:
        return (a[0] <= b[0] and a[1] > b[1]) or (a[0] < b[0] and a[1] >= b[1])

    expected = [i for i, p in enumerate(points) if not any(beats(q, p) for q in points)]
    assert pareto_front(points) == expected
    assert expected


@pytest.mark.parametrize(
    "board",
    [
        SIX,
        crowd(12, 0.004),
        crowd(18, 0.02),
        make_board(*(make_row(f"same_{i}", 1000, 0.5) for i in range(10))),
        make_board(make_row("only", 5, 0.0, 0.0)),
        make_board(make_row("linear", 0, 1.0, None)),
        make_board(*(make_row(f"lora(rank={2**i}, alpha={2**i}, dropout=0.1)", 9**i, 0.1 * i)
                     for i in range(8))),
    ],
    ids=["six", "close", "many", "same", "one", "zero", "long"],
)  # fmt: skip
def test_names_never_collide(board: Leaderboard) -> None:
    figure = params_vs_accuracy(board)
    axes = figure.axes[0]
    texts = names(figure)
    ranked = [row for row in board.rows if row.rank]
    shown = sorted(text.get_text().replace("\n", " ") for text in texts)
    assert shown == sorted(row.method for row in ranked)
    figure.canvas.draw()
    boxes = [Text.get_window_extent(text) for text in texts]
    for a, b in itertools.combinations(boxes, 2):
        assert not a.overlaps(b)
    frame = axes.get_window_extent()
    points = axes.transData.transform([text.xy for text in texts])  # type: ignore[attr-defined]
    for box in boxes:
        assert frame.x0 <= box.x0 and box.x1 <= frame.x1
        assert frame.y0 <= box.y0 and box.y1 <= frame.y1
        assert not any(box.contains(*point) for point in points)


def test_what_is_drawn() -> None:
    figure = params_vs_accuracy(SIX)
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    at = {text.get_text(): text.xy for text in names(figure)}  # type: ignore[attr-defined]
    assert at["lora"] == pytest.approx((73_700, 72))
    left, right = axes.get_xlim()
    assert left < at["linear"][0] < 11_500 and right > 2_670_000
    ticks = dict(
        zip([t.get_text() for t in axes.get_xticklabels()], axes.get_xticks(), strict=True)
    )
    assert ticks["0"] == pytest.approx(at["linear"][0]) and ticks["100K"] == 1e5
    front = {t.get_text() for t in names(figure) if t.get_fontweight() == "bold"}
    assert front == {"linear", "vpt", "adapter", "lora", "convpass"}
    for words in ("mini", "vit_mini", "3 seeds", "0123456789ab", "Incomplete, not drawn: ssf"):
        assert words in plain(figure)


@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg", ".PNG"])
def test_files_repeat_byte_for_byte(tmp_path: Path, suffix: str) -> None:
    paths = [tmp_path / "new" / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        params_vs_accuracy(SIX, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second and len(first) > 5000
    assert sorted(tmp_path.joinpath("new").iterdir()) == paths


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png, \.pdf, \.svg"):
        params_vs_accuracy(SIX, tmp_path / "plot.jpg")
    with pytest.raises(UsageError, match="petlbench run"):
        params_vs_accuracy(make_board(make_row("ssf", 1, None)), tmp_path / "plot.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot write"):
        params_vs_accuracy(SIX, str(tmp_path / "file" / "plot.png"))
    (tmp_path / "plot.png").mkdir()
    with pytest.raises(UsageError, match="cannot write"):
        params_vs_accuracy(SIX, tmp_path / "plot.png")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "plot.png"}


# Figures of amounts, searches and peeks

SHOTS = [
    (f"{name}@{k}", f"{k} shot{'s' if k > 1 else ''}")
    for k in (1, 2, 4)
    for name in ("cars", "pets")
]
SHARES = [(f"{name}@{k}", f"{k} %") for k in ("0.63", "6.25", "12.5", "25") for name in "abcde"]
LONG = [f"lora(rank={2**i}, alpha={2**i}, dropout=0.1, bias=everything)" for i in range(12)]


def made(
    method: str, task: str, group: str, seed: int, value: float, **parts: Any
) -> dict[str, Any]:
    """A finished run whose test accuracy is `value`."""
    about = {"name": method, "label": method, "source": None, "config": {}}
    return {
        "key": hashlib.sha256(f"{method} {task} {seed}".encode()).hexdigest()[:16],
        "fingerprint": "0123456789ab",
        "status": "done",
        "spec": {
            "suite": "few-shot",
            "task": task,
            "group": group,
            "seed": seed,
            "method": about,
            "backbone": {"name": "vit_mini", "checkpoint": "ab" * 32, "image_size": 48},
            "protocol": {"name": "mini"},
        },
        "test": {"metric": "accuracy", "metrics": {"accuracy": value}, "total": 100},
        "parameters": {"trainable": 10, "head": 1},
        "stored_bytes": 1,
        "train_seconds": 1.0,
        "peak_bytes": None,
        "data": {"test": task, "train": f"{task} {seed}"},
        **parts,
    }


def search(*values: float | None) -> dict[str, Any]:
    trials = [{"config": {}, "learning_rate": 0.1, "weight_decay": 0.0, "value": v} for v in values]
    best = max(range(len(values)), key=lambda i: -1 if values[i] is None else values[i])
    return {"trials": trials, "winner": best, "metric": "accuracy", "sampler": "random"}


def peek(*values: float) -> dict[str, Any]:
    curve = [{"epoch": i + 1, "accuracy": value} for i, value in enumerate(values)]
    return {"metric": "accuracy", "curve": curve, "best": max(values)}


def value_of(method: str, task: str, seed: int) -> float:
    return 0.3 + int(hashlib.sha256(f"{method}{task}{seed}".encode()).hexdigest()[:4], 16) / 2**17


def sweep(
    methods: Sequence[str], tasks: Sequence[tuple[str, str]], **parts: Callable[[float], Any]
) -> list[dict[str, Any]]:
    return [
        made(m, t, g, seed, v, **{name: of(v) for name, of in parts.items()})
        for m, (t, g), seed in itertools.product(methods, tasks, (0, 1))
        for v in [value_of(m, t, seed)]
    ]


def everything(methods: Sequence[str], tasks: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return sweep(
        methods,
        tasks,
        search=lambda v: search(v - 0.1, None, v + 0.05, v),
        peek=lambda v: peek(v - 0.1, v + 0.02, v),
    )


def board_of(records: list[dict[str, Any]], order: Sequence[tuple[str, str]]) -> Leaderboard:
    (board,) = build(records, task_order=[task for task, _ in order])
    return board


def drawn(kind: str, records: list[dict[str, Any]], tasks: Sequence[tuple[str, str]]) -> Figure:
    return draw(kind, board_of(records, tasks), records)


def test_the_command_knows_every_figure() -> None:
    assert tuple(FIGURES) == command_line.PLOTS


@pytest.mark.parametrize("kind", list(FIGURES)[1:])
@pytest.mark.parametrize("tasks", [SHOTS, SHARES], ids=["shots", "shares"])
@pytest.mark.parametrize("methods", [["lora"], ["a", "b", "c"], LONG], ids=["1", "3", "12"])
def test_all_texts_are_inside_and_apart(
    kind: str, tasks: Sequence[tuple[str, str]], methods: list[str]
) -> None:
    figure = drawn(kind, everything(methods, tasks), tasks)
    figure.canvas.draw()
    legends = [each.legend_ for each in figure.axes if each.legend_] + figure.legends
    texts = [text for text in figure.texts if text.get_text()]
    for axes in figure.axes:
        texts += [*axes.texts, axes.title]
        for axis in (axes.xaxis, axes.yaxis):
            low, high = axis.get_view_interval()  # ticks outside of it are not drawn
            texts += [
                tick.label1 for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high
            ]
        texts += [axes._left_title, axes.xaxis.label, axes.yaxis.label]  # type: ignore[attr-defined]
    texts += [text for legend in legends for text in legend.get_texts()]
    shown = [text for text in texts if text.get_text() and text.get_visible()]
    named = " ".join(text.get_text().replace("\n", " ") for text in shown)
    assert all(method in named for method in methods)
    page = figure.bbox
    boxes = [text.get_window_extent() for text in shown]
    for box in boxes:
        assert page.x0 <= box.x0 and box.x1 <= page.x1
        assert page.y0 <= box.y0 and box.y1 <= page.y1
    for (a, one), (b, other) in itertools.combinations(zip(boxes, shown, strict=True), 2):
        assert not a.overlaps(b), (one, other)


@pytest.mark.parametrize("kind", list(FIGURES)[1:])
def test_the_order_of_records_changes_no_byte(tmp_path: Path, kind: str) -> None:
    records = everything(["a", "b"], SHOTS)
    for name, found in (("a", records), ("b", records[::-1])):
        draw(kind, board_of(found, SHOTS), found, tmp_path / f"{name}.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_accuracy_against_shots() -> None:
    records = sweep(["lora", "linear"], SHOTS)
    figure = drawn("accuracy-vs-shots", records, SHOTS)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["average of 2 data sets", "cars", "pets"]
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    for name, sets in (("average of 2 data sets", ("cars", "pets")), ("cars", ("cars",))):
        axes = panels[name]
        assert axes.get_xscale() == "log" and axes.xaxis.get_transform().base == 2  # type: ignore[attr-defined]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "2", "4"]
        for method, bars in zip(names, axes.containers, strict=True):
            x, y = bars[0].get_data()  # type: ignore[index]
            expected = [
                100 * np.mean([value_of(method, f"{d}@{k}", s) for d in sets for s in (0, 1)])
                for k in (1, 2, 4)
            ]
            assert list(x) == [1, 2, 4] and list(y) == pytest.approx(expected)
    assert "2 seeds, bars" in plain(figure) and "training images a class (shots)" in plain(figure)


def test_an_average_is_over_the_same_data_sets() -> None:
    tasks = [task for task in SHOTS if task[0] != "pets@2"]
    figure = drawn("accuracy-vs-shots", sweep(["lora"], tasks), tasks)
    average = figure.axes[0].containers[0][0].get_data()[0]  # type: ignore[index]
    assert list(average) == [1, 4]
    assert "Not averaged, as not every data set was run: 2." in plain(figure)
    one = [task for task in SHOTS if task[0].startswith("cars")]
    assert len(drawn("accuracy-vs-shots", sweep(["lora"], one), one).axes) == 1


def test_shares_are_amounts_too() -> None:
    figure = drawn("accuracy-vs-shots", sweep(["lora"], SHARES), SHARES)
    ticks = [label.get_text() for label in figure.axes[1].get_xticklabels()]
    assert ticks == ["0.63", "6.25", "12.5", "25"]
    assert "share of the training images (%)" in plain(figure)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [
        ([("digits", "Natural"), ("count", "Structured")], "no amounts .*: .*Natural, Structured"),
        ([("a@1", "1 shot"), ("a@2", "2 %")], "no amounts"),
        ([("a@0", "0 shots"), ("a@2", "2 shots")], "no amounts"),
        ([("a", "1 shot"), ("b", "2 shots")], "no amounts"),
        ([("a@1", "1 shot"), ("b@1", "1 shot")], "all runs .* are of 1 shot"),
    ],
)
def test_groups_that_are_no_amounts(tasks: list[tuple[str, str]], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        drawn("accuracy-vs-shots", sweep(["lora"], tasks), tasks)


TASKS = [("a", "Natural"), ("b", "Structured")]


def steps(figure: Figure) -> dict[str, list[float]]:
    """What each step line shows, by the name beside its end."""
    axes = figure.axes[0]
    lines = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    return {
        text.get_text(): list(line.get_ydata())  # type: ignore[arg-type]
        for text, line in zip(axes.texts, lines, strict=True)
    }


def test_accuracy_against_trials() -> None:
    records = [
        made("lora", "a", "Natural", 0, 0.5, search=search(0.5, 0.7, 0.6)),
        made("lora", "a", "Natural", 1, 0.5, search=search(0.5, 0.7, 0.6)),
        made("lora", "b", "Structured", 0, 0.5, search=search(None, 0.1, 0.3)),
        made("lora", "b", "Structured", 1, 0.5, search=search(None, 0.1, 0.3)),
        *sweep(["vpt"], TASKS, search=lambda _: search(0.2, 0.1, 0.4)),
    ]
    figure = drawn("accuracy-vs-trials", records, TASKS)
    shown = steps(figure)
    assert list(shown) == ["lora", "vpt"]
    assert np.isnan(shown["lora"][0]) and shown["lora"][1:] == pytest.approx([40, 50])
    assert shown["vpt"] == pytest.approx([20, 20, 40])
    assert "3 trials a task (random)" in plain(figure)


def test_budgets_are_not_mixed() -> None:
    records = sweep(["lora"], TASKS, search=lambda _: search(0.1, 0.2))
    records += sweep(["vpt"], TASKS, search=lambda _: search(0.1, 0.2, 0.3))
    for kind in ("accuracy-vs-trials", "default-vs-tuned"):
        with pytest.raises(UsageError, match="searches of 2 and 3 trials"):
            drawn(kind, records, TASKS)


def marks(figure: Figure) -> dict[str, dict[str, float]]:
    """method -> mark -> value."""
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    series = {line.get_label(): line.get_xdata() for line in axes.lines}
    return {name: {str(k): x[i] for k, x in series.items()} for i, name in enumerate(names)}  # type: ignore[index]


def test_default_against_tuned() -> None:
    records = [
        made("lora", "a", "Natural", 0, 0.5, search=search(0.4, 0.7)),
        made("lora", "b", "Structured", 0, 0.7, search=search(0.6, 0.5)),
        made("vpt", "a", "Natural", 0, 0.9, search=search(None, 0.8)),
        made("vpt", "b", "Structured", 0, 0.9, search=search(0.7, 0.8)),
    ]
    figure = drawn("default-vs-tuned", records, TASKS)
    shown = marks(figure)
    assert list(shown) == ["vpt", "lora"]  # by the test score
    assert shown["lora"] == pytest.approx(
        {"default, validation": 50, "tuned, validation": 65, "tuned, test": 60}
    )
    assert np.isnan(shown["vpt"]["default, validation"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["–", "+15.0", "gain"]
    assert "The default setting failed on some task: vpt." in plain(figure)


def test_peek_gap() -> None:
    records = [
        made("lora", "a", "Natural", 0, 0.5, peek=peek(0.4, 0.7, 0.5)),
        made("lora", "b", "Structured", 0, 0.7, peek=peek(0.6, 0.65, 0.7)),
        made("vpt", "a", "Natural", 0, 0.9),
        made("vpt", "b", "Structured", 0, 0.9, peek=peek(0.9)),
    ]
    board = board_of(records, TASKS)
    other = made("lora", "a", "Natural", 0, 0.1, peek=peek(0.1, 0.9)) | {"fingerprint": "f" * 12}
    figure = draw("peek-gap", board, [*records, other])
    ((method, shown),) = marks(figure).items()
    assert method == "lora" and list(shown.values()) == pytest.approx([60, 70])
    assert [text.get_text() for text in figure.axes[0].texts] == ["+10.0", "gap"]
    row = next(row for row in board.rows if row.method == "lora")
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


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("accuracy-vs-trials", "--search 20"),
        ("default-vs-tuned", "--search 20"),
        ("peek-gap", "--report-peek"),
        ("peak-gap", "Did you mean peek-gap?"),
    ],
)
def test_nothing_of_that_kind_to_draw(kind: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        drawn(kind, sweep(["lora"], TASKS), TASKS)


def test_the_command_draws_peeks(cli: CLI) -> None:
    assert cli("run", "--report-peek", small=True).code == 0
    assert cli("plot", "peek-gap").out == "wrote peek_gap.png\n"
    assert Path("peek_gap.png").read_bytes().startswith(b"\x89PNG")
    cli("plot", "default-vs-tuned").refused("--search 20")
    cli("plot", "accuracy-vs-shots").refused("no amounts of training images")


def test_only_comparisons_that_have_what_is_drawn_are_chosen_from() -> None:
    plain, other = make_board(), dataclasses.replace(make_board(), fingerprint="ffffffffffff")
    records = [{"fingerprint": plain.fingerprint}, {"fingerprint": "ffffffffffff", "peek": {}}]
    assert candidates("peek-gap", [plain, other], records) == [other]
    assert candidates("params-vs-accuracy", [plain, other], records) == [plain, other]
    assert candidates("default-vs-tuned", [plain, other], records) == [plain, other]
