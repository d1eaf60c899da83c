"""A training step recorded once on a GPU and replayed: one launch by the host, not thousands."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from petlbench.errors import RunError, out_of_memory


class Replay:
    """A step (*inputs) -> loss, which adds up gradients in `parameters`, as a CUDA graph.

    The step is given anew with every call: one that is kept would keep this object alive.

    The first call runs the step as it is and settles the shapes, the second refuses to wait for
    the device, the third records; calls with other shapes run as they are. No code of the step runs
    in a replay, so what it computes may depend on its inputs, the parameters and the device's
    random numbers alone. Raises RunError where the step waits for the device.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.parameters = parameters
        self.shapes: list[torch.Size] = []
        self.calls = 0  # with these shapes, after the first
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, step: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        shapes = [x.shape for x in inputs]
        if shapes != self.shapes:
            self.shapes = self.shapes or shapes
            return step(*inputs)
        self.calls += 1
        if self.calls == 1:
            return watched(step, *inputs)
        if self.graph is None:
            self.graph = self.record(step, inputs)
        for held, new in zip(self.inputs, inputs, strict=True):
            held.copy_(new)
        self.graph.replay()
        for parameter, gradient in zip(self.parameters, self.gradients, strict=True):
            parameter.grad = gradient
        return self.loss.clone()

    def record(self, step: Callable[..., Tensor], inputs: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        """Nothing is computed yet; the graph reads `inputs` and writes `loss` and `gradients`."""
        self.inputs = [x.clone() for x in inputs]
        for parameter in self.parameters:
            parameter.grad = None  # so that the graph makes the gradients it will write
        gc.collect()  # an earlier graph that is freed during a recording breaks it
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.loss = step(*self.inputs)
        self.gradients = [parameter.grad for parameter in self.parameters]
        return graph


def watched(step: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """The step as it is. A recording that fails would leave the device's generator unusable."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        torch.cuda.set_sync_debug_mode("error")
    try:
        return step(*inputs)
    except RuntimeError as error:
        if out_of_memory(error):
            raise
        raise RunError(
            "a training step cannot be recorded as a CUDA graph: it waits for the device; run "
            f"this method without --compile. ({error})"
        ) from error
    finally:
        torch.cuda.set_sync_debug_mode("default")
