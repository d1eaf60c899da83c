"""Full, broken and read-only disks: a message, nothing half-written, and the same command goes on.

The disk is full for real where folders may be mounted. Everywhere every single request to write is
refused in turn.
"""

from __future__ import annotations

import errno
import itertools
import os
import random
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import CLI, Outcome

from chaos.faults import disk
from chaos.sweep import Sweep, Written, assert_whole
from petlbench import home, plots
from petlbench.data import cache
from petlbench.errors import UsageError
from petlbench.store import Store, read_file
from petlbench.task import load_suite

ONE = ("--methods", "linear", "--seeds", "1")  # after its search
BOARD = ("leaderboard.csv", "params_vs_accuracy.png")
ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
Run = Callable[..., Outcome]
Count = Callable[[str], None]


@pytest.fixture
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing one takes longer than the runs."""
    monkeypatch.setattr(plots, "draw", lambda *_: None)


@pytest.fixture
def run(sweep: Sweep, cli: CLI, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The sweep in this process: run(results, *options)."""
    monkeypatch.setenv("PETLBENCH_CACHE", str(sweep.cache))
    return lambda results, *more: cli(*sweep.arguments(results, *more))


@pytest.fixture
def one(run: Run, no_figure: None, tmp_path: Path) -> Path:
    """The results of a single run, left alone."""
    assert run(tmp_path / "one", *ONE).code == 0
    return tmp_path / "one"


def assert_sound(results: Path, reference: Path) -> None:
    """What has its final name is whole, and nothing else is there."""
    assert Store(results).load()[1] == []
    for file in (results / "trials").glob("*"):
        assert read_file(file)[0] is not None
    for file in (results / "artifacts").glob("*"):
        assert file.read_bytes() == (reference / "artifacts" / file.name).read_bytes()
    assert [str(f) for f in results.rglob(".*")] == []


def assert_told(done: Outcome, error: int, *parts: str) -> None:
    done.refused(os.strerror(error), "same command", *parts)


@pytest.mark.parametrize("error", ERRORS, ids=errno.errorcode.get)
def test_wherever_a_run_meets_a_full_disk(
    run: Run, one: Path, tmp_path: Path, count: Count, error: int
) -> None:
    """Every third request, from each of the first three: with three errors, every one."""
    stopped = 0
    for at in itertools.count(1 + ERRORS.index(error), len(ERRORS)):
        results = tmp_path / f"{at}"
        with disk(results, at, error) as watched:
            done = run(results, *ONE)
        if not watched.refused:
            break
        assert_told(done, error, str(results))
        assert_sound(results, one)
        stopped += 1
        written = Written(results)
        written.look()
        assert run(results, *ONE).code == 0
        written.look()
        assert_whole(results, one)
    assert stopped > 10
    count(f"results folder: one run stopped by {errno.errorcode[error]} at {stopped} requests")


@pytest.mark.usefixtures("no_figure")
def test_a_sweep_that_meets_a_full_disk_again_and_again(
    run: Run, sweep: Sweep, reference: Path, tmp_path: Path, count: Count
) -> None:
    """At random moments, once or for good; what is finished stays, and is not run again."""
    results, draw = tmp_path / "results", random.Random(0)
    written, kept, refusals = Written(results), [], 0
    for number in itertools.count():
        lasting, error = number % 4 < 3, ERRORS[number % 3]
        with disk(results, draw.randrange(1, 60), error, lasting) as watched:
            done = run(results)
        if done.code == 0:
            break
        assert watched.refused
        assert_told(done, watched.error, str(results))
        assert_sound(results, reference)
        kept.append(written.look())
        refusals += 1
    assert_whole(results, reference)
    assert refusals >= 3 and sum(kept) + written.look() == sweep.runs + 2 * len(sweep.methods)
    count(f"results folder: one sweep of {sweep.runs} runs stopped {refusals} times")


def mounted(*arguments: str | Path) -> None:
    if subprocess.run(["mount", *map(str, arguments)], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A real file system of that many KiB, the first time; then the same, grown to that."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def sized(size: int) -> Path:
        how = "remount," if folder.is_mount() else ""
        mounted("-t", "tmpfs", "-o", f"{how}size={size}k", "tmpfs", folder)
        return folder

    yield sized
    if folder.is_mount():
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.usefixtures("no_figure")
def test_a_disk_that_is_full_for_real(
    run: Run, reference: Path, small_disk: Callable[[int], Path], count: Count
) -> None:
    """Room is made little by little, and the same command typed each time."""
    results = small_disk(8) / "results"
    written = Written(results)
    for size in itertools.count(8, 24):
        small_disk(size)
        done = run(results)
        if done.code == 0:
            break
        assert_told(done, errno.ENOSPC, str(results))
        assert_sound(results, reference)
        written.look()
    assert_whole(results, reference)
    assert size > 200
    count(f"results folder: one sweep on a disk of 8 to {size} KiB, full {(size - 8) // 24} times")


def test_a_cache_that_is_full_for_real(
    run: Run,
    one: Path,
    small_disk: Callable[[int], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Its runs fail, and are made again when there is room."""
    folder, results = small_disk(8), tmp_path / "results"
    monkeypatch.setenv("PETLBENCH_CACHE", str(folder))
    done = run(results, *ONE)
    assert done.code == 1 and "1 of 1 runs failed" in done.err
    (failure,), _ = Store(results).load()
    assert "No space left on device" in failure["error"]["message"]
    assert "PETLBENCH_CACHE" in failure["error"]["message"]
    small_disk(1000)
    assert run(results, *ONE).code == 0
    assert_whole(results, one)
    assert [file.name for file in folder.rglob("*.partial")] == []


@pytest.mark.parametrize("lasting", [False, True])
def test_wherever_decoding_meets_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: Count, lasting: bool
) -> None:
    suite = load_suite("mini")
    split = suite.open_split(suite.select(["digits"])[0], "test", None, 0)
    load = partial(cache.load, split, cache.Geometry(8, "bicubic"), threads=1)
    expected = load().sha256
    for at in itertools.count(1):
        folder = tmp_path / f"{at}"
        monkeypatch.setenv("PETLBENCH_CACHE", str(folder))
        with disk(folder, at, error := ERRORS[at % 3], lasting) as watched:
            told = refusal(load)
        assert not told or (os.strerror(error) in told and "PETLBENCH_CACHE" in told)
        if not watched.refused:
            break
        left = {file.suffix for file in folder.rglob("*") if file.is_file()}
        assert ".partial" not in left and not list(folder.rglob(".*"))
        assert load().sha256 == load().sha256 == expected
    assert at > 10
    count(f"image cache: decoding met {at - 1} refusals{' for good' if lasting else ''}")


def refusal(call: Callable[[], object]) -> str:
    try:
        call()
    except UsageError as error:
        return str(error)
    return ""


def test_what_is_remembered_may_be_lost(
    run: Run,
    one: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    count: Count,
) -> None:
    """Judged records and verified images: a disk that refuses costs time, and nothing else."""
    monkeypatch.setattr(home, "SETTLED", -60.0)  # else nothing that young is remembered
    for at in itertools.count(1):
        folder = tmp_path / f"cache{at}"
        monkeypatch.setenv("PETLBENCH_CACHE", str(folder))
        with disk(folder / "judged", at, errno.ENOSPC) as watched:
            assert run(one, *ONE).code == 0
        if not watched.refused:
            break
        assert [str(file) for file in folder.rglob("*") if file.is_file()] == []
    assert at > 3
    count(f"memory of judged records: {at - 1} refusals")


def test_a_full_disk_at_the_last_moment(run: Run, tmp_path: Path) -> None:
    """The runs are recorded, and the leaderboard or the figure cannot be written."""
    results = tmp_path / "results"
    assert run(results, *ONE).code == 0
    written = Written(results)
    written.look()
    drawn = {name: (results / name).read_bytes() for name in BOARD}
    for name in BOARD:
        (results / name).unlink()
    told = []
    for at in itertools.count(1):
        with disk(results, at, errno.ENOSPC) as watched:
            done = run(results, *ONE)
        if not watched.refused:
            break
        done.refused("cannot write", os.strerror(errno.ENOSPC))
        assert [str(f) for f in results.rglob(".*")] == []
        told += [name for name in BOARD if name in done.err]
    assert set(told) == set(BOARD)
    written.look()
    assert {name: (results / name).read_bytes() for name in BOARD} == drawn


@pytest.fixture
def read_only() -> Iterator[Callable[[Path], Path]]:
    """Make a folder read-only, for root too."""
    folders: list[Path] = []

    def freeze(folder: Path) -> Path:
        mounted("--bind", folder, folder)
        folders.append(folder)
        mounted("-o", "remount,bind,ro", folder)
        return folder

    yield freeze
    for folder in folders:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.usefixtures("no_figure")
def test_a_read_only_cache_serves_what_it_holds(
    run: Run,
    one: Path,
    read_only: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("PETLBENCH_CACHE", str(folder))
    run(tmp_path / "first", *ONE)
    read_only(folder)
    assert run(tmp_path / "results", *ONE).code == 0
    assert_whole(tmp_path / "results", one)
    # of another size, the images are not there
    done = run(tmp_path / "other", *ONE, "--image-size", "24")
    assert done.code == 1
    (failure,), _ = Store(tmp_path / "other").load()
    assert "Read-only file system" in failure["error"]["message"]


def test_an_empty_read_only_cache_is_refused(
    run: Run, read_only: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "cache"
    folder.mkdir()
    monkeypatch.setenv("PETLBENCH_CACHE", str(read_only(folder)))
    run(tmp_path / "results", *ONE).refused("image cache", "Read-only", "PETLBENCH_CACHE")
    assert not (tmp_path / "results").exists()


def test_read_only_results_are_looked_at_and_not_run(
    run: Run, one: Path, cli: CLI, sweep: Sweep, read_only: Callable[[Path], Path]
) -> None:
    read_only(one)
    for command in ("leaderboard", "status", "list runs"):
        done = cli(*command.split(), "--results", one)
        assert (done.code, done.err) == (0, ""), done
    plan = cli("plan", *sweep.arguments(one)[1:])
    assert plan.code == 0 and "1 done" in plan.out
    run(one).refused("cannot be written: Read-only file system", "--results DIR")
    run(one, *ONE).refused("leaderboard.csv", "Read-only file system", "The runs are safe")
