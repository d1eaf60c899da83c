"""What can be shown of recorded steps without a GPU; the rest is in test_cuda.py."""

from __future__ import annotations

import gc
import weakref

import torch
from torch import nn

from petlbench.problems.classification import CrossEntropy
from petlbench.replay import Replay


def test_the_first_step_and_other_shapes_run_as_they_are() -> None:
    replay, weight = Replay([]), torch.tensor(3.0)
    for size in (4, 2, 3):
        assert torch.equal(replay(lambda x: x * weight, torch.ones(size)), torch.full((size,), 3.0))
    assert replay.shapes == [torch.Size([4])] and replay.graph is None


def test_it_goes_with_the_training_that_made_it() -> None:
    """At once: a graph that waits for the garbage collector may go during a recording."""
    model = nn.Linear(2, 3)
    model.replay = True  # type: ignore[assignment]
    rules = {"mixup": 0.0, "cutmix": 0.0, "label_smoothing": 0.0, "precision": "fp32"}
    labels, images = torch.tensor([0, 2]), torch.rand(2, 2)
    gc.disable()
    try:
        gradients = CrossEntropy(model, model, lambda *_: iter([images]), labels, rules, 0)
        assert len(list(gradients(0, [torch.arange(2)]))) == 1
        gone = weakref.ref(gradients.replay)
        del gradients
        assert gone() is None
    finally:
        gc.enable()
