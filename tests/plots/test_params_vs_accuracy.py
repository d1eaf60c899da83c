"""What is drawn, the Pareto front, and that names never collide."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import synthetic
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from petlbench import plots, speed
from petlbench.errors import UsageError
from petlbench.experiment import Machine
from petlbench.leaderboard import Leaderboard, Row, Score
from petlbench.plots._cost import pareto_front
from petlbench.plots.params_vs_accuracy import COSTS
from petlbench.results import Results
from petlbench.spec import RunSpec
from petlbench.store import Store
from plots.drawing import plain


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


def drawn(board: Leaderboard) -> Figure:
    return plots.draw("params-vs-accuracy", Results(board, {}, Store("nowhere")))


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
    figure = drawn(board)
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
    figure = drawn(SIX)
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


# Other costs, intervals and letters

MADE = synthetic.results(synthetic.records(["lora", "linear", "vpt", "full"], 2, 2, images=40))


@pytest.mark.parametrize("x", [x for x in COSTS if x != "added-latency"])
def test_costs(x: str) -> None:
    known = [row for row in MADE.board.rows if COSTS[x].of(MADE, row) is not None]
    if not known:
        with pytest.raises(UsageError, match=f"no record of suite synthetic .* {COSTS[x].name}"):
            plots.draw("params-vs-accuracy", MADE, x=x)
        return
    figure = plots.draw("params-vs-accuracy", MADE, x=x)
    assert figure.axes[0].get_xlabel() == COSTS[x].label
    at = {text.get_text(): text.xy[0] for text in names(figure)}  # type: ignore[attr-defined]
    for row in known:
        if cost := COSTS[x].of(MADE, row):
            assert at[row.method] == pytest.approx(cost)
    assert ("Measured on cpu." in plain(figure)) == (x in ("train-seconds", "peak-memory"))


def test_a_cost_that_is_not_known_of_all() -> None:
    some = dataclasses.replace(MADE.board.rows[0], peak_bytes=None)
    board = dataclasses.replace(MADE.board, rows=(some, *MADE.board.rows[1:]))
    figure = plots.draw(
        "params-vs-accuracy", dataclasses.replace(MADE, board=board), x="peak-memory"
    )
    assert f"No peak memory was measured, not drawn: {some.method}." in plain(figure)
    with pytest.raises(UsageError, match=r"unknown x .* 'memory'\. Did you mean peak-memory"):
        plots.draw("params-vs-accuracy", MADE, x="memory")


def test_times_of_several_machines_are_told() -> None:
    records = [dict(record) for record in MADE.records.values()]
    records[0]["environment"] = {"device": "cuda", "gpu": "A GPU"}
    figure = plots.draw("params-vs-accuracy", synthetic.results(records), x="train-seconds")
    words = " ".join(plain(figure).split())
    assert "different machines, so not comparable among them: A GPU, cpu." in words


@pytest.mark.parametrize(
    ("letters", "shown"),
    [("", ""), ("a", "a"), ("ab", "ab"), ("abc", "a–c"), ("abdefz2", "ab,d–f,z2")],
)
def test_letters_and_intervals(letters: str, shown: str) -> None:
    score = Score(0.7, 0.1, low=0.6, high=0.75)
    row = dataclasses.replace(make_row("lora", 100, 0.7), ranking=score, letters=letters)
    figure = drawn(make_board(row))
    (text,) = names(figure)
    assert text.get_text() == ("lora" + (rf"$^{{\mathrm{{{shown}}}}}$" if shown else ""))
    (bars,) = figure.axes[0].containers[0].lines[2]  # type: ignore[attr-defined]
    ((low, high),) = bars.get_segments()
    assert (low[1], high[1]) == pytest.approx((60, 75))
    assert "bars: 95% intervals" in plain(figure)
    assert ("share a letter" in plain(figure)) == bool(letters)


def test_added_latency_is_measured_here_and_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of models that do not merge; what merges adds nothing."""
    measured = []

    def latency(spec: RunSpec, machine: Machine) -> float:
        measured.append(spec.method.name)
        return {"adapter": 1.25, "convpass": 0.99}[spec.method.name]

    monkeypatch.setattr(speed, "latency", latency)
    made = synthetic.results(synthetic.records(["adapter", "convpass", "lora"], 2, 1))
    for _ in range(2):
        figure = plots.draw("params-vs-accuracy", made, x="added-latency")
    assert sorted(measured) == ["adapter", "convpass"]
    assert figure.axes[0].get_xlabel() == COSTS["added-latency"].label
    costs = {row.method: COSTS["added-latency"].of(made, row) for row in made.board.rows}
    assert costs == {"adapter": pytest.approx(25), "convpass": 0, "lora": 0}
    assert "Measured on one core of" in plain(figure)
