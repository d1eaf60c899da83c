"""Too little memory: batches are taken in parts, and a run that does not fit fails alone."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import CLI

from chaos import faults
from chaos.sweep import Sweep, ended
from petlbench import plots
from petlbench.store import Store

METHOD = '''
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from petlbench.method import Method


class Taking(nn.Module):
    """y (1 + g), for which it takes memory."""

    def __init__(self, dim):
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(dim))

    def forward(self, y):
        images = len(y)
        {taking}
        return y * (1 + self.gate)


@dataclass(frozen=True)
class Taker(Method):
    """One gate on the output of the first block's attention."""

    def attach(self, backbone):
        block = backbone.blocks[0]
        block.branches[0].after.append(Taking(block.shape.dim))

    def num_trainable(self, shape):
        return shape.blocks[0].dim
'''
ROOM = 2**30  # bytes that a sweep may take beyond what its imports took
FITS_IN_PARTS = f"torch.empty(images * {ROOM // 4}, dtype=torch.uint8)"
DOES_NOT_FIT = {
    "much_for_torch": f"torch.empty(images * {2 * ROOM}, dtype=torch.uint8)",
    "much_for_numpy": f"np.empty(images * {2 * ROOM}, np.uint8)",
}


def method(name: str, taking: str, folder: Path) -> str:
    file = folder / f"{name}.py"
    file.write_text(METHOD.replace("{taking}", taking))
    return str(file)


def records(results: Path) -> dict[str, dict[str, Any]]:
    """Method -> its record."""
    return {r["spec"]["method"]["name"]: r for r in Store(results).load()[0]}


def test_a_process_that_may_take_little_memory(sweep: Sweep, tmp_path: Path) -> None:
    """A limit of the operating system: allocations fail as on a machine that has no more."""
    too_much = [method(name, taking, tmp_path) for name, taking in DOES_NOT_FIT.items()]
    in_parts = method("in_parts", FITS_IN_PARTS, tmp_path)
    methods = ",".join([*too_much, in_parts, "linear"])
    options = ("--methods", methods, "--seeds", "1")
    limited, results = partial(faults.memory, ROOM), tmp_path / "results"
    assert ended(sweep.start(results, *options, fault=limited)) == 1
    found = records(results)
    done = {name for name, each in found.items() if each["status"] == "done"}
    assert done == {"in_parts", "linear"} == found.keys() - DOES_NOT_FIT.keys()
    for name in DOES_NOT_FIT:
        told = found[name]["error"]["message"]
        assert told.startswith("out of memory (") and "--jobs 1" in told and "--recompute" in told
    # with the memory that they need, the same command makes those that failed
    assert ended(sweep.start(results, *options)) == 0
    sweep.finish(tmp_path / "whole", "--methods", in_parts, "--seeds", "1")
    (whole,) = records(tmp_path / "whole").values()
    parts = records(results)["in_parts"]
    assert parts["micro_batches"] > whole["micro_batches"] == 1
    assert parts["train_loss"] == pytest.approx(whole["train_loss"], rel=1e-4)
    assert parts["tuned"] == whole["tuned"]


def test_a_device_on_which_one_image_does_not_fit(
    cli: CLI, sweep: Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a GPU says it."""
    monkeypatch.setenv("PETLBENCH_CACHE", str(sweep.cache))
    monkeypatch.setattr(plots, "draw", lambda *_: None)
    taking = 'raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")'
    methods = ",".join([method("huge", taking, tmp_path), "linear"])
    done = cli(*sweep.arguments(tmp_path / "results", "--methods", methods, "--seeds", "1"))
    assert done.code == 1 and "1 of 2 runs failed" in done.err
    assert "out of memory (CUDA out of memory. Tried" in " ".join(done.err.split())
    found = records(tmp_path / "results")
    assert (found["huge"]["status"], found["linear"]["status"]) == ("failed", "done")
    assert "out of memory" in cli("status", "--results", tmp_path / "results").out
