"""The sweep that the others disturb is one, and what they assert can fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from chaos.sweep import Sweep, Written, assert_whole


def test_two_undisturbed_sweeps_agree(sweep: Sweep, reference: Path, tmp_path: Path) -> None:
    written = Written(tmp_path / "again")
    sweep.finish(tmp_path / "again")
    assert_whole(tmp_path / "again", reference)
    assert written.look() == sweep.runs + len(sweep.methods) * sweep.search


@pytest.fixture
def copied(reference: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(reference, tmp_path / "copied"))


def test_a_lost_record_is_seen(reference: Path, copied: Path) -> None:
    written = Written(copied)
    written.look()
    next((copied / "records").iterdir()).unlink()
    for look in (written.look, lambda: assert_whole(copied, reference)):
        with pytest.raises(AssertionError):
            look()


def test_another_loss_is_seen(reference: Path, copied: Path) -> None:
    file = next((copied / "records").iterdir())
    record = json.loads(file.read_text())
    record["train_loss"][-1] += 1e-6
    file.write_text(json.dumps(record))
    with pytest.raises(AssertionError, match=file.stem):
        assert_whole(copied, reference)


@pytest.mark.parametrize("name", ["artifacts/.x.npz.abc", "trials/.x.json.abc", "claims/x.lease"])
def test_what_is_left_over_is_seen(reference: Path, copied: Path, name: str) -> None:
    (copied / name).touch()
    with pytest.raises(AssertionError):
        assert_whole(copied, reference)
