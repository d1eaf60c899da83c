"""Predictions; anything non-finite is refused, nothing is skipped."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from petlbench.data.normalise import Normalise
from petlbench.errors import RunError

BATCH = 128  # fixed: a batch size may change the last bits of a logit


@torch.inference_mode()
def predict(model: nn.Module, pixels: Tensor, normalise: Normalise, bf16: bool = False) -> Tensor:
    """The most likely class of every image: (N, 3, S, S) uint8 -> (N,) int64 on the CPU."""
    model.eval()
    device = normalise.device
    predictions = []
    for start in range(0, len(pixels), BATCH):
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = model(normalise(pixels[start : start + BATCH]))
        finite = torch.isfinite(logits).all(dim=1)
        if not finite.all():
            first = start + int((~finite).nonzero()[0])
            raise RunError(f"the model's output for image {first} of the split is not finite.")
        predictions.append(logits.argmax(dim=1))
    return torch.cat(predictions).cpu()
