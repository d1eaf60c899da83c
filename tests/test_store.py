"""Records are whole or absent, whatever happens while they are written."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from petlbench import store as store_module
from petlbench.errors import UsageError
from petlbench.spec import identify
from petlbench.store import SCHEMA, Store, Unwritable, write_bytes, write_text

SPEC: dict[str, Any] = {
    "suite": "mini",
    "task": "digits",
    "group": "Natural",
    "seed": 0,
    "method": {"name": "lora", "label": "lora", "source": None, "config": {}},
    "backbone": {"name": "vit_mini", "checkpoint": "random", "image_size": 48},
    "protocol": {"name": "mini", "epochs": 3},
    "members": {},
}
KEY = identify(SPEC)[0]


def record(status: Any = "done", seed: int = 0, **changes: Any) -> dict[str, Any]:
    spec = SPEC | {"seed": seed}
    key, fingerprint = identify(spec)
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "key": key,
        "fingerprint": fingerprint,
        "status": status,
        "spec": spec,
    }
    if status == "done":
        values |= {
            "test": {"correct": 1, "total": 2},
            "parameters": {"trainable": 3, "head": 4},
            "stored_bytes": 5,
            "train_seconds": 6.0,
            "test_seconds": 7.0,
            "peak_bytes": None,
            "data": {"train": "1", "test": "2"},
        }
    else:
        values["error"] = {"type": "RunError", "message": "no", "traceback": "..."}
    return values | changes


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "results")
    store.require_writable()
    return store


def files(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")


def test_a_record_comes_back(store: Store) -> None:
    assert store.read(KEY) is None
    store.write(record())
    assert store.read(KEY) == record()
    assert store.load() == ([record()], [])
    assert files(store.folder) == [f"{KEY}.json"]


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_record(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    store.write(record())

    def fail(*_: object) -> None:
        raise error

    told = Unwritable if isinstance(error, OSError) else KeyboardInterrupt
    with monkeypatch.context() as patched, pytest.raises(told):
        patched.setattr(os, step, fail)
        store.write(record(stored_bytes=99))
    assert store.read(KEY) == record()
    assert files(store.folder) == [f"{KEY}.json"]  # and nothing else


def crash(file: Path) -> None:
    """Write a file in a process that dies before it is whole."""
    code = (
        "import os, sys\n"
        "from petlbench.store import write_text\n"
        "from pathlib import Path\n"
        "os.replace = lambda *_: os._exit(9)\n"  # as if killed here
        "write_text(Path(sys.argv[1]), 'half')\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(file)], timeout=60).returncode == 9


def test_a_crash_before_the_rename_leaves_the_old_record(store: Store) -> None:
    store.write(record())
    crash(store.records / f"{KEY}.json")
    assert len(list(store.records.iterdir())) == 2  # the temporary file is left behind
    assert store.read(KEY) == record()
    assert store.load() == ([record()], [])  # and is no record


def test_files_are_written_with_their_folder(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "b.txt", "é\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "é\n".encode()
    write_bytes(tmp_path / "a" / "b.txt", b"")
    assert (tmp_path / "a" / "b.txt").read_bytes() == b""
    assert (tmp_path / "a" / "b.txt").stat().st_mode & 0o777 == 0o644


BROKEN: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "cannot be read"),
    "truncated": (json.dumps(record())[:50], "cannot be read"),
    "not text": (b"\xff\xfe\x00", "cannot be read"),
    "a list": ("[1, 2]", "is not a record of petlbench"),
    "null": ("null", "is not a record of petlbench"),
    "another key": (json.dumps(record(key="f" * 16)), "is not a record of petlbench"),
    "another schema": (json.dumps(record(schema=SCHEMA + 1)), f"has schema {SCHEMA + 1}"),
    "no status": (json.dumps(record(status=None)), "has the unknown status None"),
    "odd status": (json.dumps(record(status=["done"])), "has the unknown status"),
    "without test": (
        json.dumps({k: v for k, v in record().items() if k != "test"}),
        "lacks test",
    ),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_record_is_left_out_and_named(store: Store, kind: str) -> None:
    content, message = BROKEN[kind]
    other = record(seed=1)
    store.write(other)
    file = store.records / f"{KEY}.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    records, problems = store.load()
    assert records == [other]
    assert len(problems) == 1
    assert str(file) in problems[0] and message in problems[0]
    assert problems[0].endswith("it is left out.")


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_left_out_is_not_done(store: Store, kind: str) -> None:
    """The two must agree, or the run would be neither shown nor run again."""
    content, _ = BROKEN[kind]
    file = store.records / f"{KEY}.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    assert store.read(KEY) is None


def test_what_the_dead_left_half_written_is_removed(store: Store) -> None:
    crash(store.artifacts / f"{KEY}.safetensors")
    (left,) = store.artifacts.iterdir()
    own = store.artifacts / ".mine"
    own.touch()
    store.require_writable()
    assert left.exists()  # another process may be writing it
    for file in (left, own):
        os.utime(file, (time.time() - 2 * store_module.ABANDONED,) * 2)
    store.require_writable()
    assert list(store.artifacts.iterdir()) == [own]


def test_another_run_s_file_is_not_what_a_run_left(store: Store) -> None:
    """A process that kept its files may die before its record, and the next one keep none."""
    for told in ({}, {".safetensors": hashlib.sha256(b"x").hexdigest()}):
        store.write(made := record(artifacts=told), {".safetensors": b"x"})
        (store.artifacts / f"{KEY}.predictions.npz").write_bytes(b"of the dead")
        with pytest.raises(FileNotFoundError, match="left no such file"):
            store.artifact(made, ".predictions.npz")
    assert store.artifact(made, ".safetensors").read_bytes() == b"x"
    assert store.artifact(record(), ".predictions.npz").exists()  # of an earlier version


def test_foreign_files_do_not_disturb(store: Store) -> None:
    store.write(record())
    (store.records / "notes.md").write_text("mine")
    (store.records / ".hidden.json.tmp").write_text("{")
    (store.folder / "leaderboard.csv").write_text("a,b")
    assert store.load() == ([record()], [])


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=5,
    ),
    st.sampled_from(["schema", "key", "status", None]),
)
@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
def test_no_file_content_is_fatal(store: Store, value: Any, field: str | None) -> None:
    content = value if field is None else record(**{field: value})
    (store.records / f"{KEY}.json").write_text(json.dumps(content))
    records, problems = store.load()
    assert len(records) + len(problems) == 1


def test_done_after_failed_is_done(store: Store) -> None:
    store.write(record("failed"))
    assert store.read(KEY) is None
    assert store.load() == ([record("failed")], [])
    store.write(record())
    assert store.load() == ([record()], [])
    assert files(store.folder) == [f"{KEY}.json"]


def test_done_counts_even_if_the_failed_one_could_not_be_removed(store: Store) -> None:
    store.write(record())
    write_text(store.failed / f"{KEY}.json", json.dumps(record("failed")))
    assert store.load() == ([record()], [])


def test_non_finite_numbers_are_never_stored(store: Store) -> None:
    with pytest.raises(ValueError, match="JSON"):
        store.write(record(train_seconds=float("nan")))
    assert files(store.folder) == []


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"file/results cannot be written: .*--results DIR"):
        Store(tmp_path / "file" / "results").require_writable()


HOLDER = """
import socket, sys
from petlbench import store
folder, key, store.LEASE, store.RENEWAL, machine = sys.argv[1], sys.argv[2], 1.0, 0.2, sys.argv[3]
if machine:
    socket.gethostname = lambda: machine
with store.Store(folder).claim(key, wait=False) as mine:
    print(mine, flush=True)
    sys.stdin.read()  # until it is closed
"""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Claims that are given up after a second."""
    monkeypatch.setattr(store_module, "LEASE", 1.0)
    monkeypatch.setattr(store_module, "RENEWAL", 0.2)


@contextmanager
def held(store: Store, machine: str = "") -> Iterator[subprocess.Popen[str]]:
    """Another process that has the claim, on a machine of that name (by default on this one)."""
    command = [sys.executable, "-c", HOLDER, str(store.folder), KEY, machine]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        yield holder


def test_a_claim_excludes_other_processes_until_its_holder_dies(store: Store, short: None) -> None:
    with held(store) as holder:
        with store.claim(KEY, wait=False) as mine:
            assert not mine
        with store.claim("f" * 16, wait=False) as other:
            assert other
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=30)
        with store.claim(KEY, wait=False) as mine:  # at once: the process is known to be gone
            assert mine


def test_the_claim_of_a_dead_machine_expires(store: Store, short: None) -> None:
    with held(store, "node7") as holder:
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=30)
        with store.claim(KEY, wait=False) as mine:
            assert not mine  # a process of another machine may well be alive
        begin = time.monotonic()
        with store.claim(KEY, wait=True) as mine:
            assert mine
        assert time.monotonic() - begin >= 1


def patient(store: Store, seconds: float) -> list[bool]:
    """Wait for the claim in a thread for so long; a True if it came."""
    came: list[bool] = []

    def wait() -> None:
        with store.claim(KEY, wait=True) as mine:
            came.append(mine)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(seconds)
    return came


def test_a_live_holder_on_another_machine_keeps_its_claim(store: Store, short: None) -> None:
    with held(store, "node7"):
        assert patient(store, 3) == []


@pytest.mark.parametrize("hours", [-1000, 1000])
def test_clocks_may_jump(
    store: Store, short: None, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """Of the file server and of this machine."""
    now, shift = time.time, 3600 * hours
    with held(store, "node7"):
        monkeypatch.setattr(time, "time", lambda: now() + shift)
        (lease,) = store.claims.glob("*.lease")
        os.utime(lease, (now() + shift, now() + shift))
        assert patient(store, 2) == []


def test_a_holder_that_slept_loses_its_claim_and_takes_none_along(
    store: Store, short: None
) -> None:
    with held(store, "node7") as holder:
        holder.send_signal(signal.SIGSTOP)
        with store.claim(KEY, wait=True) as mine:
            assert mine
            holder.send_signal(signal.SIGCONT)
            holder.communicate(timeout=30)
            assert holder.returncode == 0
            with store.claim(KEY, wait=False) as again:
                assert not again


@pytest.mark.parametrize("content", [b"", b"12", b"\xff\x00\n"])
@pytest.mark.parametrize("age", [0, 1e6, -1e6])
def test_a_torn_claim_blocks_nobody_for_ever(
    store: Store, short: None, content: bytes, age: float
) -> None:
    """Its holder died, or its machine, before it was written out."""
    lease = store.claims / f"{KEY}.lease"
    lease.write_bytes(content)
    os.utime(lease, (time.time() - age,) * 2)
    assert patient(store, 10) == [True]


def test_a_claim_is_released(store: Store) -> None:
    for _ in range(2):
        with store.claim(KEY, wait=False) as mine:
            assert mine
    with pytest.raises(RuntimeError), store.claim(KEY, wait=False):
        raise RuntimeError
    with store.claim(KEY, wait=False) as mine:
        assert mine
