"""Methods at one budget: curves of rows, messages, and what the command prints."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from conftest import CLI
from synthetic import records, results, write

from petlbench import matched
from petlbench.errors import UsageError
from petlbench.results import Results
from petlbench.statistics import panel as panels
from petlbench.statistics.bootstrap import Bootstrap

SIZES = {
    "linear": 0,
    "lora(rank=2)": 50_000,
    "lora": 200_000,
    "vpt": 100_000,
    "vpt(depth=2, length=5)": 100_000,
    "vpt(length=40)": 400_000,
    "convpass": 101_000,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = records(list(SIZES), tasks=3, seeds=2)
    for record in found:
        record["parameters"]["trainable"] = SIZES[record["spec"]["method"]["label"]]
        record["train_seconds"] = 10.0 if record["spec"]["method"]["name"] == "linear" else 30.0
    return write(tmp_path_factory.mktemp("match") / "results", found)


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Results:
    from petlbench.results import load

    (found,) = load(folder)[0]
    return found


def test_scores_and_intervals_are_those_of_the_mixture(comparison: Results) -> None:
    found = matched.match(comparison, matched.PARAMETERS, 100_000, ["lora", "convpass"])
    by_name = {point.method: point for point in found.points}
    scores = {row.method: row.ranking.mean for row in comparison.board.rows if row.ranking}
    lora = by_name["lora"]
    assert lora.score == pytest.approx((scores["lora"] + scores["lora(rank=2)"]) / 2)
    assert [(row, cost) for row, cost, _ in lora.settings] == [
        ("lora(rank=2)", 50_000),
        ("lora", 200_000),
    ]
    panel = panels.of(comparison, ["lora(rank=2)", "lora"])
    draws = Bootstrap(panel).draws(panel.ranking, of=np.array([[0.5, 0.5]]))
    assert (lora.low, lora.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=2e-3)
    assert by_name["convpass"].settings == (("convpass", 101_000, 1.0),)
    assert by_name["convpass"].score == pytest.approx(scores["convpass"])
    assert sorted(by_name, key=lambda name: -by_name[name].score) == [
        point.method for point in found.points
    ]
    assert all(point.letters for point in found.points)


def test_intervals_stay_within_what_a_score_can_be() -> None:
    found = records(["lora", "vpt"], tasks=1, seeds=2)
    for record in found:
        record["test"] |= {"correct": 199, "metrics": {"accuracy": 0.995}}
        record["parameters"]["trainable"] = 1000
    for point in matched.match(results(found), matched.PARAMETERS, 1000).points:
        assert point.low < 0.995 and point.high == 1


def test_who_has_no_point_says_why(comparison: Results) -> None:
    found = matched.match(comparison, matched.PARAMETERS, 100_000)
    assert found.refused["linear"] == "has no trainable parameters"
    reason = found.refused["vpt"]  # two settings with 100K: none is chosen
    assert "vpt and vpt(depth=2, length=5)" in reason or "vpt(depth=2, length=5) and vpt" in reason
    assert "tuning on the test set" in reason
    found = matched.match(comparison, matched.PARAMETERS, 400_000)
    assert [point.method for point in found.points] == ["vpt"]
    assert found.points[0].letters == ""  # nobody to be told apart from
    assert found.refused["convpass"] == "measured at 0.10M only"
    assert found.refused["lora"] == "measured from 50.0K to 0.20M"


def test_a_row_is_chosen_by_its_name(comparison: Results) -> None:
    for asked, row in (("vpt()", "vpt"), ("vpt(depth=2, length=5)", "vpt(depth=2, length=5)")):
        found = matched.match(comparison, matched.PARAMETERS, 100_000, [asked])
        assert found.points[0].settings == ((row, 100_000, 1.0),)
    found = matched.match(comparison, matched.PARAMETERS, 2e5, ["vpt()", "vpt(length=40)"])
    assert [share for *_, share in found.points[0].settings] == pytest.approx([0.5, 0.5])
    with pytest.raises(UsageError, match="Did you mean convpass"):
        matched.match(comparison, matched.PARAMETERS, 2e5, ["convpas"])


def test_versions_and_presets_are_methods_of_their_own() -> None:
    found = records(["mine", "mine(rank=2)", "lora", "lora[tuned]"], tasks=2, seeds=1)
    for record in found:
        spec = record["spec"]["method"]
        if spec["name"].startswith("mine"):
            spec["source"] = {"mine": "a" * 64, "mine(rank=2)": "b" * 64}[spec["name"]]
        record["parameters"]["trainable"] = 1000
    found_at = matched.match(results(found), matched.PARAMETERS, 1000)
    names = {point.method for point in found_at.points}
    assert names == {"mine@aaaaaa", "mine@bbbbbb", "lora", "lora[tuned]"}


def test_a_cost_that_was_not_measured() -> None:
    found = records(["lora", "vpt"], tasks=2, seeds=2)
    for record in found:
        if record["spec"]["method"]["name"] == "vpt":
            record["peak_bytes"] = None
        else:
            record["peak_bytes"] = 10**9
    at = matched.match(results(found), matched.MEMORY, 1e9)
    assert at.refused == {"vpt": "peak memory was not measured"}
    assert at.notes[0] == "Peak memory was not measured of vpt."


def test_nothing_is_ranked_yet() -> None:
    found = records(["lora", "vpt"], tasks=2, seeds=1)
    gaps = [found[0], found[-1]]  # one of lora on a task, one of vpt on the other
    with pytest.raises(UsageError, match="no row of this comparison is complete"):
        matched.match(results(gaps), matched.PARAMETERS, 1000)


@pytest.mark.parametrize(
    ("cost", "typed", "amount"),
    [
        (matched.PARAMETERS, "300K", 300e3),
        (matched.PARAMETERS, "0.3m", 300e3),
        (matched.PARAMETERS, "1234", 1234),
        (matched.MEMORY, "2GB", 2e9),
        (matched.MEMORY, "512 MiB", 512 * 2**20),
        (matched.TIME, "60s", 60),
        (matched.TIME, "1.5h", 5400),
    ],
)
def test_amounts(cost: matched.Cost, typed: str, amount: float) -> None:
    assert cost.parse(typed) == pytest.approx(amount)


@pytest.mark.parametrize("typed", ["60", "s", "60d", "-5s", "0s", "nans", "1e999s", ""])
def test_what_is_no_amount(typed: str) -> None:
    with pytest.raises(UsageError, match="training time"):
        matched.TIME.parse(typed)


def test_the_command(cli: CLI, folder: Path, tmp_path: Path) -> None:
    printed = cli("match", "--parameters", "100K", "--results", folder)
    assert printed.code == 0
    for part in ("at 0.10M of trainable parameters", "lora(rank=2) (50.0K, 50%)", "Rank group"):
        assert part in printed.out
    flat = " ".join(printed.out.split())
    assert "Not at this budget: linear: has no trainable parameters." in flat
    assert "To choose settings by this table would be tuning on the test set." in flat

    methods = "vpt(depth=2, length=5),lora"
    asked = ("match", "--parameters", "100K", "--results", folder, "--methods", methods)
    table = cli(*asked, "--format", "markdown").out
    assert "| vpt |" in table and "| lora |" in table

    file = tmp_path / "at.csv"
    assert cli("match", "--parameters", "100K", "--results", folder, "-o", file).code == 0
    lines = list(csv.DictReader(io.StringIO(file.read_text())))
    by_name = {line["method"]: line for line in lines}
    assert set(by_name) == {"lora", "convpass", "vpt", "linear"}
    assert by_name["linear"]["why_not"] and not by_name["linear"]["score"]
    assert 0 < float(by_name["lora"]["low"]) < float(by_name["lora"]["score"]) < 1
    assert by_name["lora"]["budget"] == "100000"

    file = tmp_path / "at.txt"
    assert cli(*asked, "--metric", "accuracy", "-o", file).code == 0
    assert "lora(rank=2) (50.0K, 50%) + lora (0.20M, 50%)" in file.read_text()  # on one line
    assert "Test score: accuracy, mean of groups, linear" in file.read_text()
    cli(*asked, "--metric", "acuracy").refused("Did you mean accuracy?")


def test_the_hint_names_a_method_that_has_settings() -> None:
    found = records(["full", "linear", "vpt"], tasks=1, seeds=1)
    for record in found:
        if record["spec"]["method"]["name"] == "vpt":
            record["spec"]["method"] |= {"config": {"length": 10, "depth": 2}}
    with pytest.raises(UsageError, match=r"petlbench run --methods vpt --set vpt\.length=VALUE$"):
        matched.match(results(found), matched.PARAMETERS, 1e9)


def test_the_command_refuses(cli: CLI, folder: Path) -> None:
    at = ("match", "--results", folder)
    cli(*at).refused("--parameters", "--memory", "--train-time")
    cli(*at, "--parameters", "10M").refused(
        *("no method has settings around 10.00M", "lora: measured from 50.0K to 0.20M"),
        *("nothing is extrapolated", "on both sides of it", "petlbench list methods"),
    )
    cli(*at, "--train-time", "60").refused("'60'", "60s")
    cli(*at, "--parameters", "100K", "--format", "cvs").refused("unknown format", "csv")
    cli(*at, "--parameters", "100K", "-o", "at.json").refused("at.json: end it in .txt, .csv, .md")
    cli(*at, "--parameters", "1K", "--memory", "1GB").refused("not allowed with")
    write(folder.parent / "two" / "a", records(2, 2, 1, suite="one"), keep=False)
    write(folder.parent / "two" / "b", records(2, 2, 1, suite="other"), keep=False)
    cli("match", "--results", folder.parent / "two", "--parameters", "1K").refused(
        "2 comparisons, which must not share a table", "--fingerprint"
    )
    at = ("match", "--results", folder.parent / "two", "--parameters", "10M", "--suite")
    cli(*at, "other").refused("nothing is extrapolated")
    cli(*at, "otter").refused("unknown suite 'otter'", "Did you mean other")
