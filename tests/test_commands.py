"""Commands are found by their file names, and each keeps the contract of `commands/`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import synthetic

from petlbench import commands
from petlbench.cli import make_parser
from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

CLI = Callable[..., Any]

DROPPED = '''\
"""say a name

More that is not for --help.
"""

ORDER = 35
INTERRUPTED = "The name is kept."


def add(parser):
    parser.add_argument("name")


def run(options):
    if options.name == "nobody":
        raise KeyboardInterrupt
    print(f"it is {options.name}")
    return 1 if options.name == "Mallory" else None
'''


@pytest.mark.parametrize("name", commands.names())
def test_the_contract(name: str) -> None:
    module = commands.load(name)
    text = module.__doc__.splitlines()[0]
    assert text and not text.endswith(".")
    assert isinstance(module.ORDER, int)
    assert callable(module.add) and callable(module.run)
    parser = shared.Parser(prog=f"petlbench {name}")
    module.add(parser)
    assert parser.format_help()
    interrupted = getattr(module, "INTERRUPTED", "A sentence.")
    assert interrupted.endswith(".") and not interrupted.endswith("..")


def test_each_has_its_own_place_in_the_help() -> None:
    orders = [module.ORDER for module in commands.modules().values()]
    assert orders == sorted(set(orders))
    text = make_parser().format_help()
    places = [text.index(f"\n    {name}") for name in commands.modules()]
    assert places == sorted(places)


def test_a_file_dropped_there_is_a_command(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dropped"
    folder.mkdir()
    (folder / "hello.py").write_text(DROPPED)
    (folder / "_hidden.py").write_text("raise AssertionError")
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(folder)])
    try:
        assert "hello" in commands.names() and "_hidden" not in commands.names()
        told = cli("--help").out
        assert "say a name" in told and "More that" not in told
        done = cli("hello", "Ada")
        assert (done.code, done.out) == (0, "it is Ada\n")
        assert cli("hello", "Mallory").code == 1
        interrupted = cli("hello", "nobody")
        assert interrupted.code == 130
        assert interrupted.err == "\npetlbench: interrupted. The name is kept.\n"
    finally:
        sys.modules.pop("petlbench.commands.hello", None)


def test_an_unknown_command_is_none() -> None:
    with pytest.raises(UsageError, match="Did you mean leaderboard"):
        commands.load("leaderbord")


def test_runs_of_one_suite_are_listed(cli: CLI) -> None:
    mine = synthetic.records(["lora"], 1, 1, suite="mine")
    synthetic.write(Path("results/a"), [*mine, *synthetic.records(["lora"], 2, 1)], keep=False)
    assert len(cli("list", "runs").out.splitlines()) == 3
    assert [
        line.split()[0] for line in cli("list", "runs", "--suite", "mine").out.splitlines()
    ] == [mine[0]["key"]]


def test_a_list_of_names() -> None:
    assert shared.names(" lora, linear,,") == ["lora", "linear"]


def test_text_goes_to_the_file_or_to_the_screen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("a", "a\n"):
        shared.output(text, None)
        assert capsys.readouterr().out == "a\n"
    file = tmp_path / "a.txt"
    shared.output("a\n", file)
    assert capsys.readouterr().out == f"wrote {file}\n"
    assert file.read_text() == "a\n"
    with pytest.raises(UsageError, match=r"cannot write .*a\.txt"):
        shared.output("a", file / "a.txt")
    assert capsys.readouterr().out == ""
