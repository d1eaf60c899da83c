"""The command line: what it prints, and one screen for everything that can be wrong."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file, save_file

import petlbench
from petlbench import api, method

CLI = Callable[..., Any]


def results(kind: str = "records") -> list[dict[str, Any]]:
    files = sorted(Path("results").glob(f"*/{kind}/*.json"))
    return [json.loads(file.read_text()) for file in files]


def nothing_was_written(tmp_path: Path) -> bool:
    return not (tmp_path / "results").exists()


# What works


def test_run(cli: CLI) -> None:
    done = cli("run", "--methods", "linear,lora", small=True)
    assert (done.code, done.err) == (0, "")
    assert "mini: 2 runs, 0 done, 2 to go" in done.out
    assert "wrote results/small/leaderboard.csv" in done.out
    assert "next: petlbench run " in done.out and "--seeds 3" in done.out
    assert {r["spec"]["method"]["name"] for r in results()} == {"linear", "lora"}
    again = cli("run", "--methods", "linear,lora", small=True)
    assert (again.code, again.err) == (0, "") and "2 runs, 2 done, 0 to go" in again.out
    file = next(Path("results/small/records").glob("*.json"))
    file.write_text(file.read_text()[:900])
    plan = cli("plan", "--methods", "linear,lora", small=True)
    assert plan.code == 0 and "2 runs, 1 done, 1 to go" in plan.out
    assert file.name in plan.err and plan.err.endswith("Its run counts as not done.\n")


def test_the_next_command_can_be_typed(cli: CLI) -> None:
    done = cli("run", "--methods=linear", "--set", "protocol.learning_rate=0.002", small=True)
    command = next(line for line in done.out.splitlines() if line.startswith("next: petlbench "))
    words = command.partition("(")[0].split()[2:]
    assert cli(*words).code == 0
    assert len(results()) == 3  # three seeds


def test_settings_reach_the_record(cli: CLI) -> None:
    arguments = ["--methods", "lora", "--set", "lora.rank=2", "--set", "protocol.batch_size=50"]
    assert cli("run", *arguments, small=True).code == 0
    (record,) = results()
    assert record["spec"]["method"]["config"]["rank"] == 2
    assert record["spec"]["protocol"]["batch_size"] == 50
    assert record["spec"]["protocol"]["image_size"] == 16


def test_vtab_1k_from_folders(cli: CLI, vtab_root: Path) -> None:
    suite = ["--suite", "vtab-1k", "--backbone", "vit_mini", "--tasks", "cifar100,dtd"]
    done = cli("run", *suite, "--data-root", vtab_root, "--seeds", "1", small=True)
    assert done.code == 0, done
    first, second = sorted(results(), key=lambda r: str(r["spec"]["task"]))
    assert (first["spec"]["task"], second["spec"]["task"]) == ("cifar", "dtd")
    assert first["test"]["total"] == 40
    assert first["parameters"]["head"] == 128 * 100 + 100


def test_plan(cli: CLI, tmp_path: Path) -> None:
    done = cli("plan", "--methods", "linear,lora", "--seeds", "2", small=True)
    assert done.code == 0 and "mini: 4 runs, 0 done, 4 to go" in done.out
    assert "0 / 2" in done.out
    assert nothing_was_written(tmp_path)


def test_a_plan_file(cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text(
        'methods = ["linear", {name = "lora", rank = 2}]\nseeds = 2'
    )
    tail = ["--tasks", "digits", "--checkpoint", "random", "--image-size", "16", "--device", "cpu"]
    done = cli("plan", "--plan", "plan.toml", "--seeds", "1", "--jobs", "1", *tail)
    assert done.code == 0 and "mini: 2 runs" in done.out and "lora(rank=2)" in done.out


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("methods", ["convpass ", "vpt_shallow ", "linear "]),
        ("tasks", ["cifar ", "digits ", "mini, Natural, 10 classes"]),
        ("suites", ["mini ", "vtab-1k "]),
        ("protocols", ["mini ", "vtab-1k "]),
        ("backbones", ["vit_mini ", "vit_base_patch16_224.orig_in21k "]),
    ],
)
def test_lists(cli: CLI, what: str, expected: list[str]) -> None:
    done = cli("list", what)
    assert done.code == 0 and done.err == ""
    for text in expected:
        assert text in done.out


def test_tasks_of_one_suite(cli: CLI) -> None:
    done = cli("list", "tasks", "--suite", "mini")
    assert len(done.out.splitlines()) == 5
    cli("list", "tasks", "--suite", "minni").refused("Did you mean mini?")


def test_help(cli: CLI) -> None:
    for arguments in ([], ["--help"], ["run", "--help"], ["leaderboard", "--help"]):
        done = cli(*arguments)
        assert done.code == 0 and "petlbench" in done.out
    assert "examples:" in cli().out
    assert cli("--version").out.startswith("petlbench ")


@pytest.fixture
def recorded(cli: CLI) -> None:
    assert cli("run", small=True).code == 0


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("form", ["table", "csv", "markdown", "json"])
def test_leaderboard(cli: CLI, form: str) -> None:
    done = cli("leaderboard", "--format", form)
    assert done.code == 0 and "linear" in done.out
    if form == "json":
        json.loads(done.out)


@pytest.mark.usefixtures("recorded")
def test_leaderboard_files(cli: CLI, tmp_path: Path) -> None:
    for name in ("board.csv", "board.md", "deeper/board.json"):
        assert cli("leaderboard", "-o", name).out == f"wrote {name}\n"
    assert pd.read_csv("board.csv")["method"].tolist() == ["linear"]
    assert "| linear" in Path("board.md").read_text()
    json.loads(Path("deeper/board.json").read_text())
    cli("leaderboard", "-o", "board.txt", "--format", "csv").refused("board.txt", "ends in .csv")
    (tmp_path / "file").touch()
    cli("leaderboard", "-o", "file/board.csv").refused("cannot write file/board.csv")
    cli("leaderboard", "--format", "xml").refused("unknown format 'xml'")
    cli("leaderboard", "--fingerprint", "zz").refused("unknown fingerprint 'zz'")


@pytest.mark.usefixtures("recorded")
def test_plots(cli: CLI, tmp_path: Path) -> None:
    for name, start in (("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.svg", b"<?xml")):
        assert cli("plot", "params-vs-accuracy", "-o", name).out == f"wrote {name}\n"
        assert Path(name).read_bytes().startswith(start)
    (tmp_path / "file").touch()
    cli("plot", "params-vs-accuracy", "-o", "a.xyz").refused(".xyz")
    cli("plot", "params-vs-accuracy", "-o", "file/a.png").refused("cannot write file/a.png")
    cli("plot", "params-vs-acuracy").refused("Did you mean params-vs-accuracy?")


@pytest.mark.usefixtures("recorded")
def test_two_comparisons_do_not_share_a_plot(cli: CLI) -> None:
    assert (
        cli("run", "--results", "results/b", "--set", "protocol.batch_size=50", small=True).code
        == 0
    )
    assert cli("leaderboard").code == 0
    refused = cli("plot", "params-vs-accuracy")
    refused.refused("2 comparisons", "batch_size", "--fingerprint ")
    fingerprint = refused.err.partition("--fingerprint ")[2].split()[0]
    assert cli("plot", "params-vs-accuracy", "--fingerprint", fingerprint).code == 0


@pytest.mark.usefixtures("recorded")
def test_a_truncated_record_is_named_and_left_out(cli: CLI) -> None:
    assert cli("run", "--methods", "bitfit", small=True).code == 0
    file = next(f for f in Path("results/small/records").iterdir() if "bitfit" in f.read_text())
    file.write_text(file.read_text()[:200])
    done = cli("leaderboard")
    assert done.code == 0 and "linear" in done.out and "bitfit" not in done.out
    assert f"{file} cannot be read" in done.err and "left out" in done.err
    for words in (["list", "runs"], ["cite"]):
        assert f"{file} cannot be read" in cli(*words).err
    assert f"{file} cannot be read" in cli("run", small=True).err
    with pytest.warns(UserWarning, match="cannot be read"):
        assert len(petlbench.load_results()) == 1
    next(f for f in file.parent.iterdir() if f != file).unlink()
    cli("leaderboard").refused(file.name)


def test_check(cli: CLI, tmp_path: Path) -> None:
    cli("check").refused("--all")
    cli("check", "lora", "--all").refused("--all")
    done = cli("check", "lora")
    assert done.code == 0 and "lora is sound" in done.out and "DOES NOT HOLD" not in done.out
    text = method.builtin()["linear"].read_text().replace("return 0", "return 7")
    (tmp_path / "mine.py").write_text(text)
    done = cli("check", "./mine.py", "linear")
    assert done.code == 1
    assert "DOES NOT HOLD  trains as many parameters as declared" in done.out
    assert "0 trainable, 7 declared" in done.out
    assert "./mine.py is NOT sound" in done.out and "linear is sound" in done.out
    cli("check", "lorra").refused("Did you mean lora")
    cli("check", "./absent.py").refused("no method file at")


# What is wrong with the arguments


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["rnu"], ["rnu", "run", "--help"]),
        (["run", "--metods", "lora"], ["--metods", "--help"]),
        (["run", "--seeds", "three"], ["--seeds", "'three' is not a whole number"]),
        (["run", "--seeds", "0"], ["seeds = 0", "at least 1"]),
        (["run", "--jobs"], ["--jobs", "expected one argument"]),
        (["list"], ["methods|tasks"]),
        (["list", "method"], ["unknown list 'method'", "Did you mean methods?"]),
        (["run", "--methods", "convpas"], ["unknown method 'convpas'", "Did you mean convpass"]),
        (["run", "--methods", ","], ["no methods given"]),
        (["run", "--methods", "./absent.py"], ["no method file at", "absent.py"]),
        (["run", "--tasks", "digit"], ["unknown task", "'digit'", "Did you mean digits?"]),
        (["run", "--tasks", ","], ["no tasks"]),
        (["run", "--suite", "vtab"], ["unknown suite 'vtab'", "Did you mean vtab-1k?"]),
        (["run", "--protocol", "vtab"], ["unknown protocol 'vtab'", "Did you mean vtab-1k?"]),
        (["run", "--backbone", "vit_bass_patch16_224"], ["Did you mean vit_base_patch16_224"]),
        (
            ["run", "--backbone", "resnet18", "--checkpoint", "random"],
            ["resnet18", "BatchNorm", "petlbench list backbones"],
        ),
        (["run", "--checkpoint", "absent.pth"], ["no checkpoint file at", "absent.pth"]),
        (["run", "--image-size", "20"], ["--image-size 20", "multiple of the patch size 8"]),
        (["run", "--image-size", "big"], ["image_size", "'big'"]),
        (["run", "--epochs", "0"], ["epochs"]),
        (["run", "--precision", "half"], ["precision = 'half'", "'bf16'"]),
        (["run", "--device", "tpu"], ["device = 'tpu': choose one of"]),
        (["run", "--keep", "nothing"], ["keep = 'nothing': choose one of"]),
        (["run", "--set", "linear.rank"], ["--set linear.rank", "convpass.scale=0.1"]),
        (["run", "--set", "rank=3"], ["--set rank=3", "convpass.scale=0.1"]),
        (["run", "--set", "linear.rank=3"], ["linear has no settings"]),
        (["run", "--set", "lora.rank=3"], ["'lora'", "linear"]),
        (["run", "--methods", "lora", "--set", "lora.rank=0"], ["lora.rank = 0", ">= 1"]),
        (["run", "--methods", "lora", "--set", "lora.rank=x"], ["lora.rank = 'x'", "int"]),
        (["run", "--methods", "lora", "--set", "lora.rnk=1"], ["'rnk'", "Did you mean rank?"]),
        (["run", "--set", "protocol.epoch=1"], ["'epoch'", "Did you mean epochs"]),
        (["run", "--plan", "absent.toml"], ["cannot read plan file absent.toml"]),
        (
            ["run", "--suite", "vtab-1k", "--backbone", "vit_mini"],
            ["--data-root", "PETLBENCH_DATA"],
        ),
        (["leaderboard"], ["no results in results", "petlbench run", "--results DIR"]),
        (["plot", "params-vs-accuracy"], ["no results in results"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_arguments(cli: CLI, tmp_path: Path, arguments: list[str], parts: list[str]) -> None:
    command, *rest = arguments
    if command == "run" and "--tasks" not in rest and "--suite" in rest:
        rest += ["--tasks", "cifar"] if "vtab-1k" in rest else []
    cli(command, *rest, small=command == "run").refused(*parts)
    assert nothing_was_written(tmp_path)


# What is wrong with files


VTAB = ["--suite", "vtab-1k", "--backbone", "vit_mini", "--tasks", "cifar,dtd", "--seeds", "1"]


def test_missing_data_are_listed(cli: CLI, vtab_root: Path, tmp_path: Path) -> None:
    (vtab_root / "dtd" / "train800val200.txt").unlink()
    told = cli("run", *VTAB, "--tasks", "cifar,dtd,svhn", "--data-root", vtab_root, small=True)
    told.refused(f"no list file {vtab_root}/dtd/train800val200.txt", f"no folder {vtab_root}/svhn")
    assert "--tasks cifar" in told.err
    told = cli("run", *VTAB, "--data-root", tmp_path / "nowhere", small=True)
    told.refused(f"no folder {tmp_path}/nowhere/cifar", f"no folder {tmp_path}/nowhere/dtd")
    assert nothing_was_written(tmp_path)


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("images/00 of 20.png", "is not 'relative/path label'"),
        ("images/00 of 20.png 47", "the label must be in 0..46"),
        ("images/00 of 20.png -1", "the label must be in 0..46"),
        (None, "lists 999 images; 1000 are expected"),
    ],
)
def test_bad_lists(cli: CLI, vtab_root: Path, tmp_path: Path, line: str | None, part: str) -> None:
    file = vtab_root / "dtd" / "train800val200.txt"
    lines = file.read_text().splitlines()
    lines[6:7] = [line] if line else []
    file.write_text("\n".join(lines))
    where = f"{file}, line 7" if line else str(file)
    cli("run", *VTAB, "--data-root", vtab_root, small=True).refused("dtd", where, part)
    assert nothing_was_written(tmp_path)


@pytest.mark.parametrize("how", ["missing", "corrupt"])
def test_a_bad_image_fails_its_run_alone(cli: CLI, vtab_root: Path, how: str) -> None:
    image = vtab_root / "dtd" / "images" / "07 of 20.png"
    whole = image.read_bytes()
    if how == "missing":
        image.unlink()
    else:
        image.write_bytes(whole[:60])
    done = cli("run", *VTAB, "--data-root", vtab_root, small=True)
    assert done.code == 1
    assert str(image) in done.err and "dtd" in done.err and "Traceback" not in done.err
    assert "1 of 2 runs failed" in done.err and "results/small/failed" in done.err
    assert len(done.err.splitlines()) <= 25
    assert [r["spec"]["task"] for r in results()] == ["cifar"]
    assert [r["spec"]["task"] for r in results("failed")] == ["dtd"]
    image.write_bytes(whole)
    assert cli("run", *VTAB, "--data-root", vtab_root, small=True).code == 0
    assert len(results()) == 2 and not results("failed")


def test_a_non_finite_loss_says_where(cli: CLI) -> None:
    done = cli("run", "--methods", "lora", "--set", "protocol.learning_rate=1e30", small=True)
    assert done.code == 1
    assert "failed: lora" in done.err and "Traceback" not in done.err
    assert len(done.err.splitlines()) <= 25
    assert "of epoch 1 (learning rate" in " ".join(done.err.split())
    assert "at step" in " ".join(done.err.split())


def test_a_full_disk(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    cli("run", small=True)  # fills the image cache
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        told = cli("run", "--methods", "bitfit", small=True)
    told.refused("No space left on device", "same command", "results/small")
    assert len(results()) == 1 and not results("failed")
    assert not list(Path("results").rglob(".*"))  # no temporary file


def test_a_disk_that_is_full_only_for_the_leaderboard(
    cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: Path, text: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(api, "write_text", full)
    cli("run", small=True).refused("leaderboard.csv", "No space left on device")
    assert len(results()) == 1


def test_a_results_folder_that_cannot_be_written(cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    told = cli("run", "--results", "file/results", small=True)
    told.refused("results folder file/results cannot be written", "--results DIR")


def test_a_cache_that_cannot_be_written(
    cli: CLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("PETLBENCH_CACHE", str(tmp_path / "file" / "cache"))
    done = cli("run", small=True)
    assert done.code != 0 and "Traceback" not in done.err
    assert "image cache" in done.err and "PETLBENCH_CACHE" in done.err


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda w: w.pop("norm.bias"), "1 missing: norm.bias"),
        (lambda w: w.update(extra=np.ones(3, np.float32)), "1 unexpected: extra"),
        (
            lambda w: w.update({"norm.bias": np.ones(3, np.float32)}),
            "norm.bias [3] instead of [128",
        ),
        (
            lambda w: w.update({"patch_embed.proj.weight": np.ones((128, 3, 4, 4), np.float32)}),
            "patch_embed.proj.weight is [128, 3, 4, 4], the backbone's is [128, 3, 8, 8]",
        ),
        (lambda w: w.clear(), "missing"),
    ],
    ids=["missing", "unexpected", "shape", "patch", "empty"],
)
def test_a_checkpoint_of_another_architecture(
    cli: CLI, checkpoint: Path, tmp_path: Path, change: Callable[[Any], Any], part: str
) -> None:
    weights = load_file(checkpoint)
    change(weights)
    save_file(weights, tmp_path / "other.safetensors")
    told = cli("run", "--checkpoint", tmp_path / "other.safetensors", small=True)
    told.refused("other.safetensors does not fit this backbone", part)
    assert nothing_was_written(tmp_path)


def test_a_checkpoint_that_is_none(cli: CLI, tmp_path: Path) -> None:
    (tmp_path / "w.safetensors").write_text("no")
    told = cli("run", "--checkpoint", "w.safetensors", small=True)
    told.refused("w.safetensors cannot be read as a checkpoint")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("def broken(:", "SyntaxError"),
        ("x = 1", "exactly one Method subclass"),
        (
            "from dataclasses import dataclass\nfrom petlbench import Method\n"
            "@dataclass(frozen=True)\nclass A(Method):\n    rank: int\n",
            "rank",
        ),
        (
            "from dataclasses import dataclass\nfrom petlbench import Method\n"
            "@dataclass(frozen=True)\nclass A(Method):\n    rank: int = 1\n"
            "    def __post_init__(self):\n        raise ValueError('rank is odd')\n",
            "rank is odd",
        ),
    ],
)
def test_a_file_that_is_no_method(cli: CLI, tmp_path: Path, text: str, part: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    cli("run", "--methods", "./mine.py", small=True).refused("mine", part)
    cli("check", "./mine.py").refused("mine", part)
    assert nothing_was_written(tmp_path)


def test_an_interrupt_is_told(cli: CLI, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(api, "execute", interrupt)
    done = cli("run", small=True)
    assert done.code == 130 and "the same command goes on" in done.err


def test_a_broken_pipe_still_reaches_the_workers_parent(cli: CLI) -> None:
    """While runs are under way a dead worker or connection must be an error, not a silent end."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    cli("run", small=True)
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_IGN


# Start-up


def run_quietly(*arguments: str, allowed: str = "") -> None:
    """The command in a fresh interpreter, which must not import torch, nor more than `allowed`."""
    code = (
        "import sys\nfrom petlbench.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'timm', 'matplotlib', 'scipy', 'joblib'} & sys.modules.keys()\n"
        f"heavy -= {{{allowed!r}}}\n"
        "assert not heavy, heavy"
    )
    command = [sys.executable, "-c", code, *arguments]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    "arguments",
    ["--help", "run --help", "--version", *(f"list {what}" for what in (
        "methods", "tasks", "suites", "protocols", "backbones"
    ))],
)  # fmt: skip
def test_torch_is_not_imported(arguments: str) -> None:
    run_quietly(*arguments.split())


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("form", ["table", "csv", "markdown", "json"])
def test_torch_is_not_imported_by_the_leaderboard(form: str) -> None:
    run_quietly("leaderboard", "--format", form, allowed="scipy")  # of the intervals


@pytest.mark.skipif(os.name != "posix", reason="pipes")
def test_a_closed_pipe_ends_quietly() -> None:
    command = f"'{sys.executable}' -m petlbench list tasks | head -n 1"
    result = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=60)
    assert len(result.stdout.splitlines()) == 1 and result.stderr == ""
