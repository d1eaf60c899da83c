"""A plan file and the command line say the same request, or one message says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from petlbench import plan, request
from petlbench.errors import UsageError
from petlbench.request import Request
from petlbench.task import load_suite


def test_the_default_is_the_users_card() -> None:
    request = Request()
    card = {"convpass", "adapter", "lora", "vpt", "full", "linear"}
    assert request.methods is None and set(load_suite(request.suite).methods) == card
    assert (request.suite, request.folder) == ("mini", Path("results/mini"))
    assert Request(results="elsewhere").folder == Path("elsewhere")


@pytest.fixture
def plan_file(tmp_path: Path) -> Callable[..., Request]:
    def read(text: str, **changes: Any) -> Request:
        (tmp_path / "plan.toml").write_text(text)
        return request.from_file(tmp_path / "plan.toml", changes)

    return read


PLAN = """
suite = "mini"
tasks = ["digits"]
methods = ["linear", {name = "convpass", scale = 0.1}, "lora"]
checkpoint = "random"
seeds = 2
jobs = 1

[settings]
"lora.rank" = 4
[settings.protocol]
epochs = 3
image_size = 16
"""


def test_a_plan_file_is_a_request(plan_file: Callable[..., Request]) -> None:
    request = plan_file(PLAN)
    assert (request.seeds, request.jobs, request.tasks) == (2, 1, ["digits"])
    made = plan.make(request)
    assert [s.method.label for s in made.specs[:3]] == [
        "linear",
        "convpass(scale=0.1)",
        "lora(rank=4)",
    ]
    assert made.specs[0].rules["epochs"] == 3


def test_the_command_line_wins(plan_file: Callable[..., Request]) -> None:
    request = plan_file(PLAN, seeds=1, settings={"protocol.epochs": "7", "lora.alpha": "2"})
    rules = plan.make(request).specs[0].rules
    assert request.seeds == 1
    assert rules["epochs"] == 7 and rules["image_size"] == 16
    assert request.settings["lora.rank"] == 4 and request.settings["lora.alpha"] == "2"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seedz = 3", "unknown key in plan file"),
        ("seeds = '3'", "seeds = '3' must be a whole number."),
        ("seeds = true", "seeds = True must be a whole number."),
        ("seeds = 0", "seeds = 0 must be a whole number of at least 1."),
        ("methods = 'lora'", "methods = 'lora' must be an array."),
        ("methods = [3]", "3"),
        ("tasks = [3]", "3"),
        ("suite = 3", "suite = 3 must be text."),
        ("settings = 3", "settings = 3 must be a table."),
        ("settings = {rank = 3}", "unknown name in --set 'rank'"),
        ("settings = {protocol = {epochs = [3]}}", "protocol.epochs = [3] must be of type int."),
        ("[settings.lora.deep]\nrank = 3", "unknown setting of lora 'deep.rank'"),
        ("seeds = ", "is not valid TOML"),
        ("seeds = 1\nseeds = 2", "is not valid TOML"),
    ],
)
def test_bad_plan_files_are_refused(
    plan_file: Callable[..., Request], text: str, message: str
) -> None:
    base = "" if text.startswith(("methods", "seeds = 1\n")) else 'methods = ["lora"]\n'
    with pytest.raises(UsageError) as raised:
        plan.make(plan_file(base + text))
    assert message in str(raised.value)


def test_an_unreadable_plan_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read plan file .*absent\.toml: No such file"):
        request.from_file(tmp_path / "absent.toml", {})
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"bytes\.toml is not valid TOML"):
        request.from_file(tmp_path / "bytes.toml", {})
