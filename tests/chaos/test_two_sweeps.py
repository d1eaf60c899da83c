"""Two sweeps on one folder at the same time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pandas as pd

from chaos.sweep import PATIENCE, Sweep, assert_whole


def test_two_commands_share_the_work(tmp_path: Path, sweep: Sweep, reference: Path) -> None:
    """Each asks for two of the three methods. Both end well, and no run is made twice."""
    results = tmp_path / "shared"
    commands = [
        subprocess.Popen(
            sweep.command(results, "--methods", methods, "--jobs", jobs),
            env=sweep.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for methods, jobs in (("linear,bitfit", "1"), ("bitfit,lora", "1"))
    ]
    for command in commands:
        out, errors = command.communicate(timeout=PATIENCE)
        assert command.returncode == 0, errors
        assert not errors and "bitfit" in out
    assert not list((results / "claims").iterdir())
    pd.read_csv(results / "leaderboard.csv")
    sweep.finish(results)
    assert_whole(results, reference)
