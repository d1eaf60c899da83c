"""What the tests of several backends need: a method that kills, and results side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from petlbench.store import Record, Store

DIES = '''
import os, signal
from dataclasses import dataclass
from pathlib import Path
from petlbench.methods.linear import Linear as Base

@dataclass(frozen=True)
class Dies(Base):
    """Is killed in mid-run where the file `die` says so.

    "run": each time; "once"; "parent": once, and the parent of its process with it.
    """
    def attach(self, backbone):
        super().attach(backbone)
        file = Path(__file__).with_name("die")
        if not file.exists():
            return
        how = file.read_text()
        if how != "run":
            file.unlink()
        if how == "parent":
            os.kill(os.getppid(), signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)
'''
DIED = "the process of this run died: killed, for lack of memory, or by a method's own doing"


def mortal(folder: Path, how: str) -> str:
    """Write the method that dies as `how` says; its name."""
    (folder / "dies.py").write_text(DIES)
    (folder / "die").write_text(how)
    return "./dies.py"


def here(request: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """The same request for this machine."""
    return request | {"backend": "local", "resources": {}, "jobs": 1} | changes


def recorded(folder: str = "results/small") -> dict[str, Record]:
    """Key -> record, done or failed."""
    records, problems = Store(folder).load()
    assert problems == []
    return {record["key"]: record for record in records}


def status(folder: str = "results/small") -> dict[str, str]:
    """Method -> done or failed."""
    return {r["spec"]["method"]["name"]: r["status"] for r in recorded(folder).values()}


def assert_same_bits(folder: str, other: str, count: int) -> None:
    """Both hold the same `count` runs, with the same numbers and the same trained tensors."""
    ours, theirs = recorded(folder), recorded(other)
    assert ours.keys() == theirs.keys() and len(ours) == count
    for key, record in ours.items():
        for field in ("test", "train_loss", "parameters", "stored_bytes", "spec", "data"):
            assert record[field] == theirs[key][field]
        (kept,) = (Path(folder) / "artifacts").glob(f"{key}.safetensors")
        assert kept.read_bytes() == (Path(other) / "artifacts" / kept.name).read_bytes()
