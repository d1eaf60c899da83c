"""Settings per task: what is shipped is valid, and a preset's runs are one row of their own."""

from __future__ import annotations

import csv
import fnmatch
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI

from petlbench import api, formats, leaderboard, method, plan, presets, weights
from petlbench.errors import UsageError
from petlbench.request import Request
from petlbench.results import folders
from petlbench.store import Store
from petlbench.task import load_suite

BUILTIN = presets.builtin()
VALUES = Path(os.environ.get("PETLBENCH_PRESETS_CSV", "per_task_settings.csv")).absolute()
ALIASES = {"retinopathy": "diabetic_retinopathy"}  # names of that table beside the suite's own
SIZED = """
source = "here"
chosen = "per task by us"

[mini]
digits = { rank = 1 }
fashion_mnist = { rank = 4, alpha = 2.0 }
"""


@pytest.fixture
def sized(tmp_path: Path) -> Path:
    file = tmp_path / "lora.sized.toml"
    file.write_text(SIZED)
    return file


def make(**request: Any) -> plan.Plan:
    settings = {"protocol.image_size": 16} | dict(request.pop("settings", {}))
    return plan.make(
        Request(**{"checkpoint": "random", "device": "cpu", **request}, settings=settings)
    )


def test_some_are_shipped() -> None:
    assert {"convpass.released", "convpass_attn.released"} <= BUILTIN.keys()


@pytest.mark.parametrize("name", BUILTIN)
def test_every_preset_fits_its_method_and_names_every_task(name: str) -> None:
    preset = presets.load(name)
    assert preset.name == name and preset.method in method.builtin()
    assert preset.source and preset.chosen
    for suite, settings in preset.suites.items():
        tasks = [task.name for task in load_suite(suite).tasks]
        assert list(settings) == tasks
        for values in preset.of(suite, tasks):
            spec = method.specify(preset.method, dict(values))
            assert spec.config.items() >= values.items()


@pytest.mark.parametrize("name", BUILTIN)
@pytest.mark.skipif(not VALUES.is_file(), reason="set PETLBENCH_PRESETS_CSV to compare digits")
def test_digits_are_those_of_the_source(name: str) -> None:
    """A table method, task, scale_s, width_or_rank, conv_init, ..., source of what was released."""
    preset, tasks = presets.load(name), load_suite("vtab-1k").tasks
    canonical = {alias: task.name for task in tasks for alias in (task.name, *task.aliases)}
    repository, _, pattern = preset.source.removeprefix("github.com/").partition(", ")
    with VALUES.open(encoding="utf-8") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            if fnmatch.fnmatch(row["source"], f"{repository}:{pattern}")
        ]
    assert len(rows) == len(tasks)
    for row in rows:
        task = ALIASES.get(row["task"]) or canonical[row["task"]]
        values = preset.suites["vtab-1k"][task]
        assert values["scale"] == float(row["scale_s"])
        (size,) = [values[field] for field in ("hidden", "rank") if field in values]
        assert size == int(row["width_or_rank"])
        assert values.get("init", "") == row["conv_init"]


@pytest.mark.parametrize(("name", "printed"), [("fact_tt", 0.037), ("fact_tk", 0.069)])
def test_ranks_of_fact_give_the_size_its_paper_prints(name: str, printed: float) -> None:
    """Millions, the mean of groups: Table 1 of the paper (the mean of tasks is not)."""
    preset, suite = presets.load(f"{name}.released"), load_suite("vtab-1k")
    shape = weights.shape(weights.BackboneSpec("vit_base_patch16_224", weights.RANDOM), 224)
    sizes: dict[str, list[int]] = {}
    for task in suite.tasks:
        spec = method.specify(name, dict(preset.suites["vtab-1k"][task.name]))
        sizes.setdefault(task.group, []).append(spec.build().num_trainable(shape))
    means = [sum(group) / len(group) for group in sizes.values()]
    assert round(sum(means) / len(means) / 1e6, 3) == printed


def test_each_task_has_its_own_settings(sized: Path) -> None:
    made = make(
        tasks=["digits", "fashion_mnist"], methods=["linear", "lora"], presets=[str(sized)], seeds=2
    )
    lora = [spec for spec in made.specs if spec.method.name == "lora"]
    assert [(s.task, s.method.config["rank"], s.method.config["alpha"]) for s in lora] == [
        ("digits", 1, 8.0),
        ("fashion_mnist", 4, 2.0),
    ] * 2
    assert {spec.method.label for spec in lora} == {"lora[sized]"}
    note = {"name": "lora.sized", "chosen": "per task by us", "source": "here"}
    assert all(spec.as_dict()["method"]["preset"] == note for spec in lora)
    others = [spec for spec in made.specs if spec.method.name != "lora"]
    assert all("preset" not in spec.as_dict()["method"] for spec in others)


def test_explicit_settings_win(sized: Path) -> None:
    given: dict[str, Any] = {"tasks": ["digits", "fashion_mnist"], "presets": str(sized)}
    for changes in (
        {"methods": ["lora"], "settings": {"lora.rank": "2"}},
        {"methods": [{"name": "lora", "rank": 2}]},
    ):
        specs = make(**given, **changes).specs
        assert {spec.method.config["rank"] for spec in specs} == {2}
        assert {spec.method.config["alpha"] for spec in specs} == {8.0, 2.0}
        assert {spec.method.label for spec in specs} == {"lora[sized](rank=2)"}


def test_several_presets_of_a_method_are_several_rows(sized: Path) -> None:
    other = sized.with_name("lora.other.toml")
    other.write_text(SIZED)
    made = make(tasks=["digits"], methods=["lora"], presets=[str(sized), str(other)])
    assert [spec.method.label for spec in made.specs] == ["lora[sized]", "lora[other]"]
    assert len({spec.key for spec in made.specs}) == 2
    with pytest.raises(UsageError, match=r"lora\[sized\] is given twice"):
        make(tasks=["digits"], methods=["lora"], presets=[str(sized)] * 2)


def test_a_run_belongs_to_the_row_it_was_asked_for(sized: Path) -> None:
    """Equal settings, two rows: neither may miss a task because the other has it."""
    (plain,) = make(tasks=["digits"], methods=[{"name": "lora", "rank": 1}]).specs
    (row,) = make(tasks=["digits"], methods=["lora"], presets=[str(sized)]).specs
    assert plain.method.config == row.method.config
    assert plain.key != row.key and plain.fingerprint == row.fingerprint


def test_released_settings_reach_every_task_of_their_suite(vtab_root: Path) -> None:
    made = make(
        suite="vtab-1k",
        tasks=["cifar100", "dtd"],
        backbone="vit_mini",
        methods=["convpass"],
        presets=["convpass.released"],
        data_root=str(vtab_root),
        seeds=1,
    )
    found = {s.task: (s.method.config["scale"], s.method.config["init"]) for s in made.specs}
    assert found == {"cifar": (0.1, "identity"), "dtd": (0.01, "xavier")}


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("lora.toml", SIZED, ["METHOD.NAME.toml"]),
        ("lora.x.toml", "source = ", ["not valid TOML"]),
        ("lora.x.toml", "[mini]\ndigits = {}", ["source"]),
        ("lora.x.toml", 'source = "a"\nchosen = "b"', ["a table per suite"]),
        ("lora.x.toml", 'source = "a"\nchosen = "b"\nrank = 3', ["a table per suite"]),
        ("lora.x.toml", 'source = "a"\nchosen = "b"\n[mini]\ndigits = 3', ["one line per task"]),
        ("lora.x.toml", SIZED.replace("rank = 1", "rang = 1"), ["lora.x", "digits", "rank"]),
        ("lora.x.toml", SIZED.replace("rank = 1", "rank = 0"), ["lora.x", "digits", ">= 1"]),
        ("vpt.x.toml", SIZED, ["vpt.x is for vpt", "--methods lora,vpt"]),
        ("lora.x.toml", SIZED.replace("[mini]", "[vtab-1k]"), ["suite mini", "vtab-1k", "digits"]),
    ],
)
def test_a_bad_preset_is_refused(tmp_path: Path, name: str, text: str, parts: list[str]) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(UsageError) as raised:
        make(methods=["lora"], tasks=["digits"], presets=[str(file)])
    for part in parts:
        assert part in str(raised.value)


def test_what_is_not_there_is_told(cli: CLI, sized: Path) -> None:
    run = ("run", "--methods", "lora,convpass", "--tasks")
    cli(*run, "digits", "--preset", "convpas.released").refused("Did you mean convpass.released")
    cli(*run, "digits", "--preset", "./convpass.none.toml").refused("cannot read preset")
    outcome = cli(*run, "digits,scene_count", "--preset", sized, small=True)
    outcome.refused("lora.sized", "no settings for scene_count", "--tasks digits")


def test_a_plan_file_names_presets(cli: CLI, sized: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(f'methods = ["lora"]\npresets = ["{sized}"]\n')
    outcome = cli("plan", "--plan", "plan.toml", "--methods", "lora", small=True)
    assert outcome.code == 0 and "lora[sized]" in outcome.out
    (tmp_path / "plan.toml").write_text(f'presets = "{sized}"\n')
    cli("plan", "--plan", "plan.toml", small=True).refused("presets", "must be an array")


def test_presets_are_listed(cli: CLI) -> None:
    lines = cli("list", "presets").out.splitlines()
    assert [line.split()[0] for line in lines] == list(BUILTIN)
    assert any("scale, hidden, init for 19 tasks of vtab-1k" in line for line in lines)


def test_one_row_with_its_range_of_parameters(small: dict[str, Any], sized: Path) -> None:
    """From the run to every table: one row, how it was tuned, and sizes with the mean named."""
    tasks = ["digits", "fashion_mnist"]
    result = api.run(**small | {"methods": ["lora"], "tasks": tasks, "presets": [str(sized)]})
    assert result.failed == 0 and result.board and result.results
    (row,) = result.board.rows
    shape = weights.shape(weights.specify("vit_mini", weights.RANDOM), 16)
    low, high = (method.load("lora")(rank=rank).num_trainable(shape) for rank in (1, 4))  # type: ignore[call-arg]
    assert row.method == "lora[sized]" and row.rank == 1
    assert (row.trainable_parameters_min, row.trainable_parameters_max) == (low, high)
    assert row.trainable_parameters == row.trainable_parameters_mean_of_groups == (low + high) // 2
    assert any("lora[sized] were chosen per task by us" in note for note in result.board.notes)
    assert any("the mean of tasks" in note for note in result.board.notes)
    compact = [leaderboard.compact(count) for count in (row.trainable_parameters, low, high)]
    shown = f"{compact[0]} ({compact[1]}–{compact[2]})"
    assert shown in formats.write([result.results], "markdown")
    assert "lora[sized]" in formats.write([result.results], "table")
    frame = result.frame()
    assert frame["trainable_parameters_max"].tolist() == [high]
    (folder,) = folders(small["results"])
    configs = {r["spec"]["task"]: r["spec"]["method"]["config"] for r in Store(folder).load()[0]}
    assert {task: config["rank"] for task, config in configs.items()} == dict(
        zip(tasks, (1, 4), strict=True)
    )


def test_default_and_preset_are_two_settings_of_one_method(
    small: dict[str, Any], sized: Path
) -> None:
    both = small | {"methods": ["lora"]}
    api.run(**both)
    result = api.run(**both, presets=[str(sized)])
    assert result.board is not None
    assert {row.method for row in result.board.rows} == {"lora", "lora[sized]"}
    assert any("lora appears with 2 settings" in note for note in result.board.notes)
