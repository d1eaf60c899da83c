"""The README's table of methods is what the code says today."""

from __future__ import annotations

from pathlib import Path

import proofs
import pytest
from conftest import CLI

from petlbench import method, methods_table
from petlbench.errors import UsageError
from petlbench.methods_table import BEGIN, END

README = Path(__file__).parents[1] / "README.md"
COMMAND = "petlbench list methods --format markdown -o README.md"
TEXT = README.read_text(encoding="utf-8")
TABLE = [
    line for line in TEXT.partition(BEGIN)[2].partition(END)[0].splitlines() if line.startswith("|")
]
needs_markers = pytest.mark.skipif(BEGIN not in TEXT, reason=f"{README.name} has no {BEGIN}")


@needs_markers
@pytest.mark.parametrize("name", method.builtin())
def test_the_row_is_as_measured(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods_table, "check", lambda made: proofs.findings(name))
    row = methods_table.to_markdown([name]).splitlines()[-1]
    assert row in TABLE, f"{README.name} is stale; type: {COMMAND}"


@needs_markers
def test_there_is_a_row_for_each_method() -> None:
    head = methods_table.to_markdown([]).splitlines()
    names = [row.partition("`")[2].partition("`")[0] for row in TABLE[2:]]
    assert (TABLE[:2], names) == (head, list(method.builtin())), f"stale; type: {COMMAND}"


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("convpass", "`parallel` of attn, mlp"),
        ("lora", "`deltas` of attn.qkv"),
        ("full", "trains all weights"),
        ("linear", "the head only"),
        ("bitfit", "trains bias of LayerNorms, convolutions, linear layers"),
    ],
)
def test_sites_are_measured(name: str, where: str) -> None:
    assert methods_table.where(method.load(name)()) == where


def test_a_row_says_what_is_known() -> None:
    (row,) = methods_table.to_markdown(["lora"]).splitlines()[2:]
    assert row.startswith("| `lora` | LoRA: a low-rank update")
    for cell in ("(https://arxiv.org/abs/2106.09685)", "| 294,912 | yes |", "not for ConvNeXt"):
        assert cell in row


def test_a_method_that_is_not_sound_is_not_hidden(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from petlbench.check import Finding

    findings = [Finding("a", "x", True), Finding("a", "y", False), Finding("b", "x", True)]
    monkeypatch.setattr(methods_table, "check", lambda made: findings)
    assert "| 2 of 3 on 2 models |" in methods_table.to_markdown(["linear"])


def test_the_command_writes_between_the_markers(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(method, "builtin", lambda: {"linear": Path("linear.py")})
    table = cli("list", "methods", "--format", "markdown").out
    assert table.count("\n") == 3 and "| `linear` |" in table
    file = tmp_path / "page.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    for _ in range(2):
        assert cli("list", "methods", "--format", "markdown", "-o", file).code == 0
        assert file.read_text() == f"before\n{BEGIN}\n\n{table}\n{END}\nafter\n"
    file.write_text("no place")
    cli("list", "methods", "--format", "markdown", "-o", file).refused(BEGIN)
    assert file.read_text() == "no place"
    cli("list", "tasks", "--format", "markdown").refused("list methods --format markdown")
    with pytest.raises(UsageError, match="has no lines"):
        methods_table.insert(table, file)
