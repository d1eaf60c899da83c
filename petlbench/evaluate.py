"""Predictions; anything non-finite is refused, nothing is skipped."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from petlbench import parallel
from petlbench.data.normalise import Normalise
from petlbench.errors import RunError, out_of_memory

# Images at a time. Fixed per kind of device, since it may change the last bits of a logit: on
# CPUs what the caches hold (measured), elsewhere what fills the device; less if memory is short.
CPU_BATCH, DEVICE_BATCH = 32, 1024


@torch.inference_mode()
def outputs(
    forward: Callable[[Tensor], Tensor], inputs: Tensor, device: torch.device, bf16: bool = False
) -> Tensor:
    """`forward` of all inputs, a batch at a time; the result lies on `device`.

    Nothing waits for the device before the last batch has been sent to it. A batch that does not
    fit into its memory is halved.
    """
    batch = CPU_BATCH if device.type == "cpu" else DEVICE_BATCH
    results: list[Tensor] = []
    part = parallel.block(len(inputs))
    start = part.start
    while start < part.stop:
        try:
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                results.append(forward(inputs[start : min(start + batch, part.stop)]))
        except (RuntimeError, MemoryError) as error:
            if batch == 1 or not out_of_memory(error):
                raise
            batch //= 2
            continue
        start += batch
    return parallel.join(torch.cat(results), len(inputs))


def logits(model: nn.Module, pixels: Tensor, normalise: Normalise, bf16: bool = False) -> Tensor:
    """The logits of every image: (N, 3, S, S) uint8 -> (N, classes) on the CPU, all finite."""
    model.eval()
    found = outputs(lambda images: model(normalise(images)), pixels, normalise.device, bf16).cpu()
    finite = torch.isfinite(found).all(dim=1)
    if not finite.all():
        first = int((~finite).nonzero()[0])
        raise RunError(f"the model's output for image {first} of the split is not finite.")
    return found


def predict(model: nn.Module, pixels: Tensor, normalise: Normalise, bf16: bool = False) -> Tensor:
    """The most likely class of every image: (N, 3, S, S) uint8 -> (N,) int64 on the CPU."""
    return logits(model, pixels, normalise, bf16).argmax(dim=1)
