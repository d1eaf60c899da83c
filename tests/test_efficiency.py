"""Scores that charge for costs, against the tables that the papers print."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_leaderboard import full, only

from petlbench import efficiency
from petlbench.efficiency import pscp
from petlbench.errors import UsageError
from petlbench.leaderboard import Row, Score


def row(score: float, **costs: float | None) -> Row:
    return replace(only(full("a")).rows[0], ranking=Score(score, None), **costs)


@pytest.mark.parametrize(
    ("accuracy", "millions", "printed"),
    [(79.32, 0, 0.79), (84.78, 0.77, 0.82), (89.1, 0.85, 0.86), (71.7, 2.38, 0.65)],
)  # fmt: skip
def test_ppt_of_the_released_table(accuracy: float, millions: float, printed: float) -> None:
    """V-PETL Bench, README: linear, LoRA and VPT-deep on FGVC, LST on VTAB-1K."""
    made = row(accuracy / 100, trainable_parameters=round(millions * 1e6))
    assert efficiency.load("ppt").score(made) == pytest.approx(printed, abs=0.005)


@pytest.mark.parametrize(
    ("score", "parameters", "tflops", "gigabytes", "printed"),
    [
        (74.7, 196_608, 8.69 - 8.38, 28.41, 55.62),
        (50.0, 409_600, 10.05 - 8.38, 42.47, 29.49),
        (45.9, 34_177_536, 8.39 - 8.38, 27.61, 33.18),
        (51.7, 53_130_752, 10.06 - 8.38, 34.53, 29.26),
        (80.1, 14_680_064, 0, 27.75, 60.08),
        (77.8, 266_240, 0, 27.43, 60.19),
    ],
)
def test_pscp_of_the_papers_table(
    score: float, parameters: int, tflops: float, gigabytes: float, printed: float
) -> None:
    """arXiv:2511.21285, tables 1 and 3; FLOPs and memory are in its released code."""
    found = pscp.penalised(score, parameters, tflops * 1e12, gigabytes * 1e9)
    assert found == pytest.approx(printed, abs=0.005)


def test_what_is_not_known_is_not_charged_for() -> None:
    costs = {"trainable_parameters": 10, "added_flops": 0.0, "mean_peak_bytes": 1e9}
    assert pscp.score(row(0.5, **costs)) is not None
    for name in costs:
        assert pscp.score(row(0.5, **costs | {name: None})) is None
    assert efficiency.load("ppt").score(row(0.5, trainable_parameters=None)) is None
    assert efficiency.load("ppt").score(replace(row(0.5), ranking=None)) is None


def test_columns_never_change_ranks() -> None:
    board = only(full("big", 80, trainable=80_000_000) + full("small", 70))
    found = efficiency.add(board, ["ppt", "pscp"])
    assert [(r.method, r.rank) for r in found.rows] == [("big", 1), ("small", 2)]
    big, small = (r.efficiency["ppt"] for r in found.rows)
    assert big is not None and small is not None and big < small
    assert found.efficiency["ppt"].startswith("score × exp(")
    with pytest.raises(UsageError, match=r"unknown efficiency score 'ptt'\. Did you mean ppt"):
        efficiency.add(board, ["ptt"])
