"""What is there, and the command line of it: petlbench data list, prepare, verify."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from petlbench.errors import UsageError
from petlbench.prepare import originals, overview
from petlbench.prepare.examples import Example
from petlbench.task import load_suite
from prepare.test_copies import zipped

CLI = Callable[..., Any]
VTAB = load_suite("vtab-1k")


def states(root: Path | None) -> dict[str, overview.State]:
    return {each.task: each for each in overview.states(VTAB, root)}


def test_what_is_there(vtab_root: Path) -> None:
    found = states(vtab_root)
    assert len(found) == 19
    cifar = found["cifar"]
    assert (cifar.state, cifar.detail, cifar.lineage) == ("present", "", "unknown")
    assert cifar.images == {"train800": 800, "val200": 200, "train800val200": 1000, "test": 40}
    images = (vtab_root / "cifar" / "images").iterdir()
    assert cifar.bytes == sum(image.stat().st_size for image in images)  # each file once
    assert cifar.source == "CIFAR-100 (binary version)" and cifar.licence == "not stated"
    assert found["svhn"].state == "missing" and "no folder" in found["svhn"].detail
    assert found["svhn"].images == {} and found["svhn"].bytes == 0


def test_what_is_incomplete(vtab_root: Path) -> None:
    (vtab_root / "cifar" / "val200.txt").unlink()
    (vtab_root / "dtd" / "images" / "03 of 20.png").unlink()
    found = states(vtab_root)
    assert found["cifar"].state == found["dtd"].state == "incomplete"
    assert "no list file" in found["cifar"].detail
    assert found["dtd"].detail.startswith("1 images are not there: ")
    for image in (vtab_root / "dtd" / "images").iterdir():
        image.unlink()
    assert states(vtab_root)["dtd"].state == "missing"


def test_without_a_data_root() -> None:
    assert all(each.state == "missing" for each in states(None).values())


def test_every_suite_is_listed(cli: CLI, tmp_path: Path) -> None:
    for arguments in ((), ("--data-root", tmp_path)):
        done = cli("data", "list", *arguments)
        assert done.code == 0, done.err
        for suite in overview.on_disk():
            assert suite.name in done.out
        assert "diabetic_retinopathy" in done.out and "not stated" in done.out


def test_reasons_are_told_once(cli: CLI, vtab_root: Path) -> None:
    done = cli("data", "list", "vtab-1k", "--data-root", vtab_root)
    assert done.out.count("no folder") == 1 and "<task>" in done.out
    assert "800 + 200 + 1,000 + 40" in done.out
    assert "(images of train800, val200, train800val200, test)" in done.out


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from petlbench import cli\n"
        "cli.dispatch(['data', 'list'])\n"
        "assert 'torch' not in sys.modules and 'pandas' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_present(vtab_root: Path) -> None:
    def names(chosen: list[str] | None) -> list[str]:
        return [task.name for task in overview.present(VTAB, chosen, vtab_root)]

    assert names(None) == ["cifar", "dtd"] and names(["dtd"]) == ["dtd"]
    with pytest.raises(UsageError, match=r"there is nothing of\n  svhn: no folder"):
        names(["dtd", "svhn"])
    with pytest.raises(UsageError, match=r"there is nothing of\n  cifar: no folder"):
        overview.present(VTAB, None, vtab_root / "elsewhere")


# The command line


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """CIFAR-100 as a source of 1,040 small pictures, under the suite's true training sizes."""
    (task,) = VTAB.select(["cifar"])
    monkeypatch.setitem(task.sizes, "test", 40)  # type: ignore[arg-type]
    begins = {"train800": 0, "val200": 800, "test": 1000}

    def example(index: int) -> Example:
        colour = np.random.default_rng(index).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return Example(str(index), {"cifar": index % 100}, lambda: Image.fromarray(colour), "x")

    def splits(raw: Path) -> dict[str, list[Example]]:
        if not raw.is_dir():
            raise UsageError(f"no {raw}")
        return {
            split: [example(begin + i) for i in range(task.sizes[split])]
            for split, begin in begins.items()
        }

    from petlbench.prepare.sources import cifar

    monkeypatch.setattr(cifar, "splits", splits)
    (tmp_path / "raw" / "cifar").mkdir(parents=True)
    return tmp_path / "raw"


def test_prepare_and_verify(cli: CLI, raw: Path) -> None:
    arguments = ("data", "prepare", "vtab-1k", "--raw", raw, "--data-root", "d's")
    done = cli(*arguments, "--tasks", "cifar")
    assert (done.code, done.err) == (0, "")
    assert "made: cifar" in done.out and "--data-root 'd'\"'\"'s'" in done.out
    again = cli(*arguments, "--tasks", "cifar100")
    assert again.code == 0 and "there already: cifar" in again.out
    assert states(Path("d's"))["cifar"].lineage == "lossless"
    sound = cli("data", "verify", "--data-root", "d's")
    assert (sound.code, sound.err) == (0, "")
    assert sound.out == "cifar: 1,040 images, all as prepared (lossless)\n"
    file = Path("d's/cifar/images/test/000007.png")
    with Image.open(file) as image:
        image.putpixel((0, 0), (1, 2, 3))
        image.save(file)
    changed = cli("data", "verify", "vtab-1k", "--tasks", "cifar", "--data-root", "d's")
    assert changed.code == 1 and "cifar: 1,040 images, DIFFERS" in changed.out
    assert "the pixels of 1 of 40 images changed: images/test/000007.png" in changed.out


def test_what_can_be_made_is_made(cli: CLI, raw: Path) -> None:
    arguments = ("data", "prepare", "vtab-1k", "--raw", raw, "--data-root", "out")
    done = cli(*arguments, "--tasks", "cifar,caltech101,clevr_count,clevr_dist")
    assert done.code == 2 and "made: cifar" in done.out
    assert done.err.startswith("petlbench: 3 of 4 tasks could not be prepared.\n")
    assert "clevr_count, clevr_dist: " in done.err  # once, and with where to get it
    assert "CLEVR_v1.0.zip" in done.err and str(raw / "clevr") in done.err
    assert "caltech101" in done.err and "--from" in done.err


def test_everything_that_cannot_be_made_is_told(cli: CLI, tmp_path: Path) -> None:
    done = cli("data", "prepare", "vtab-1k", "--raw", tmp_path / "raw", "--data-root", "out")
    assert done.code == 2 and "19 of 19 tasks could not be prepared" in done.err
    for task in VTAB.tasks:
        assert task.name in done.err


def test_from_an_archive(cli: CLI, raw: Path, tmp_path: Path) -> None:
    arguments = ("data", "prepare", "vtab-1k", "--tasks", "cifar", "--data-root")
    cli(*arguments, "a", "--raw", raw)
    file = zipped(Path("a"), tmp_path / "v.zip")
    done = cli(*arguments, "b", "--from", file)
    assert (done.code, done.err) == (0, "") and "made: cifar" in done.out
    assert states(Path("b"))["cifar"].lineage == "unknown"  # whoever packed it may say anything
    assert cli("data", "verify", "--data-root", "b").code == 0


def test_the_environment_names_the_data_root(
    cli: CLI, vtab_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETLBENCH_DATA", str(vtab_root))
    assert "present" in cli("data", "list", "vtab-1k").out
    done = cli("data", "verify", "--tasks", "cifar")
    assert done.code == 1 and "test: 40 images; 10,000 are published." in done.out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("data",), ["list|prepare|verify"]),
        (("data", "lst"), ["'lst'"]),
        (("data", "prepare"), ["SUITE"]),
        (("data", "prepare", "vtab"), ["unknown suite 'vtab'", "vtab-1k"]),
        (("data", "prepare", "mini", "--raw", "x"), ["only vtab-1k can be prepared"]),
        (("data", "prepare", "vtab-1k"), ["--raw DIR", "--from COPY"]),
        (("data", "prepare", "vtab-1k", "--raw", "x", "--from", "y"), ["--raw DIR"]),
        (("data", "prepare", "vtab-1k", "--from", "y", "--download"), ["--download"]),
        (("data", "prepare", "vtab-1k", "--from", "y"), ["no such folder or archive"]),
        (("data", "prepare", "vtab-1k", "--raw", "x", "--tasks", "cifr"), ["Did you mean cifar"]),
        (("data", "verify", "vtab-1k", "--tasks", "cifar"), ["nothing of", "cifar"]),
        (("data", "verify", "mini"), ["inside the package"]),
        (("data", "list", "mini"), ["inside the package"]),
        (("data", "list", "vtab1k"), ["Did you mean vtab-1k"]),
    ],
)
def test_bad_input(cli: CLI, arguments: tuple[str, ...], parts: list[str]) -> None:
    more = ("--data-root", "out") if arguments[1:2] and arguments[1] != "lst" else ()
    cli(*arguments, *more).refused(*parts)


def test_ctrl_c(cli: CLI, raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(originals, "prepare", interrupt)
    done = cli("data", "prepare", "vtab-1k", "--raw", raw, "--data-root", "out")
    assert done.code == 130 and "What is finished is kept" in done.err


@pytest.mark.parametrize("verb", ["prepare", "verify"])
def test_no_data_root(cli: CLI, verb: str) -> None:
    cli("data", verb, "vtab-1k").refused("--data-root DIR", "PETLBENCH_DATA")
