"""`petlbench plan --resolve`: what is proposed, the commands to type, and what is refused."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import CLI
from synthetic import predictions, records, write

from petlbench import results as loaded
from petlbench.commands import _shared as shared
from petlbench.commands import plan as plan_command
from petlbench.commands._resolve import _FLAGS, _commands, _given, _verdict
from petlbench.plan import Plan
from petlbench.resolve import Resolution, resolve
from petlbench.statistics.resolve import LIMIT, Pair


def board(folder: Path) -> loaded.Results:
    (found,) = loaded.load(folder)[0]
    return found


def test_hours_are_those_of_a_seed_on_all_tasks(tmp_path: Path) -> None:
    found = records(["lora", "vpt"], tasks=3, seeds=2)
    for record in found:
        record["train_seconds"], record["test_seconds"] = 1000.0, 200.0
    comparison = board(write(tmp_path / "results", found))
    made = resolve(comparison, comparison.board.rows)
    assert made.hours == (1.0, 1.0)  # 3 tasks of 1,200 seconds
    assert made.methods == tuple(row.method for row in comparison.board.rows)
    extra = sum(seeds - 2 for seeds in made.proposal.seeds)
    assert made.proposal.hours == pytest.approx(extra)


def finish(cli: CLI, *asked: str) -> None:
    """The runs of `petlbench run`, without training: all methods are equal."""
    plans: list[Plan] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "print_plan", lambda plan, **_: plans.append(plan))
        assert cli("plan", *asked, small=True).code == 0
    for spec in plans[0].specs:
        like = records(["linear"], {spec.task: spec.group}, spec.seed + 1)[-1]
        identity = {"spec": spec.as_dict(), "key": spec.key, "fingerprint": spec.fingerprint}
        folder = write(plans[0].store.folder, [like | identity], keep=False)
        np.savez(folder / "artifacts" / f"{spec.key}.predictions.npz", **predictions(like))


def test_the_command_proposes_what_can_be_typed(cli: CLI) -> None:
    asked = ("--methods", "lora,linear", "--set", "lora.rank=2")
    finish(cli, *asked)
    told = cli("plan", "--resolve", *asked, small=True)
    assert told.code == 0, told
    assert "1 of 1 pairs cannot be told apart on these tasks." in told.out
    assert "One seed of" in told.out
    assert "3 seeds first" in told.out and "Stop there" in told.out
    nexts = [line[6:] for line in told.out.splitlines() if line.startswith("next: ")]
    assert len(nexts) == 1
    words = shlex.split(nexts[0])
    assert words[:2] == ["petlbench", "run"] and words[-2:] == ["--seeds", "3"]
    assert set(words[words.index("--methods") + 1].split(",")) == {"lora", "linear"}
    assert "--resolve" not in words and "lora.rank=2" in words
    assert "6 runs, 2 done, 4 to go" in cli("plan", *words[2:]).out  # the same with `run`
    cheap = cli("plan", "--resolve", "--hours", "0.000001", *asked, small=True)
    assert cheap.code == 0 and "next: " not in cheap.out


def test_it_refuses_what_has_no_ties(cli: CLI) -> None:
    cli("plan", "--resolve", small=True).refused("nothing of this comparison is recorded")
    cli("plan", "--hours", "3", small=True).refused("--resolve")
    cli("plan", "--resolve", "--hours", "few", small=True).refused("no number of hours")
    finish(cli)
    cli("plan", "--resolve", small=True).refused("linear is ranked", "petlbench run")
    finish(cli, "--tasks", "digits,fashion_mnist")
    cli("plan", "--resolve", small=True).refused("ranks by 2 tasks", "fashion_mnist")


def plan_and_resolution(
    tmp_path: Path, seeds: tuple[int, ...]
) -> tuple[Resolution, SimpleNamespace]:
    """Of lora, vpt and convpass with two seeds each, to have so many."""
    comparison = board(write(tmp_path / "results", records(["lora", "vpt", "convpass"], 2, 2)))
    order = {name: i for i, name in enumerate(("lora", "vpt", "convpass"))}
    rows = sorted(comparison.board.rows, key=lambda row: order[row.method])
    made = resolve(comparison, rows)
    plan = SimpleNamespace(request=SimpleNamespace(methods=["./lora.py", "vpt", "convpass"]))
    return replace(made, proposal=replace(made.proposal, seeds=seeds)), plan


def test_a_command_for_each_number_of_seeds(tmp_path: Path) -> None:
    found, plan = plan_and_resolution(tmp_path, (5, 2, 4))
    typed = ["plan", "--resolve", "--set", "lora.rank=2", "--set", "protocol.epochs=3"]
    typed += ["--methods", "./lora.py,vpt,convpass", "--seeds", "2", "--recompute"]
    options = SimpleNamespace(arguments=typed, plan=None, presets=None)
    common = "petlbench run"
    assert _commands(found, plan, options) == [  # type: ignore[arg-type]
        f"{common} --set protocol.epochs=3 --recompute --methods convpass --seeds 4",
        f"{common} --set lora.rank=2 --set protocol.epochs=3 --recompute --methods ./lora.py "
        "--seeds 5",
    ]


def test_a_plan_file_runs_as_a_whole(tmp_path: Path) -> None:
    found, plan = plan_and_resolution(tmp_path, (5, 2, 4))
    options = SimpleNamespace(
        arguments=["plan", "--plan", "my plan.toml", "--resolve"], plan="my plan.toml", presets=None
    )
    (command,) = _commands(found, plan, options)  # type: ignore[arg-type]
    assert command.startswith("petlbench run --plan 'my plan.toml' --seeds 5")
    assert "all methods" in command


@pytest.mark.parametrize(
    ("pair", "verdict"),
    [
        (Pair(0, 1, 0.02, 0.03, math.nan, math.nan, math.nan), "3 seeds first"),
        (Pair(0, 1, 0.02, 0.03, 0.01, 4.0, 0.85), "5 and 2 seeds settle it (85%): "),
        (Pair(0, 1, 0.02, 0.03, 0.01, 6.0, 0.3), "takes 6 seeds of each: left out"),
        (Pair(0, 1, 0.02, 0.03, 0.01, LIMIT + 20.0, 0.3), "about 40 seeds of each, more than 20"),
        (Pair(0, 1, 0.02, 0.03, 0.025, math.inf, 0.1), "no seeds can at this difference"),
    ],
)
def test_verdicts(tmp_path: Path, pair: Pair, verdict: str) -> None:
    found, _ = plan_and_resolution(tmp_path, (5, 2, 4))
    assert verdict in _verdict(pair, found)


def test_flags_are_all_options_without_a_value() -> None:
    parser = shared.Parser()
    plan_command.add(parser)
    shown = re.findall(r"\[(--[a-z-]+)\]", parser.format_usage())
    assert shown and sorted(shown) == sorted(_FLAGS)


def test_options_are_read_as_they_were_typed() -> None:
    typed = ["plan", "--resolve", "--set", "lora.rank=2", "--set=vpt.length=5", "--recompute"]
    assert list(_given([*typed, "--jobs=2"])) == [
        ("--resolve", None),
        ("--set", "lora.rank=2"),
        ("--set", "vpt.length=5"),
        ("--recompute", None),
        ("--jobs", "2"),
    ]
