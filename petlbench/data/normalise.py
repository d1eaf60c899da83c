"""From uint8 images to what a backbone was pre-trained on."""

from __future__ import annotations

import torch
from torch import Tensor


class Normalise:
    """uint8 images (B, 3, S, S) -> (x / 255 - mean) / std on `device`."""

    def __init__(self, mean: list[float], std: list[float], device: torch.device) -> None:
        # one multiply and one add per pixel
        self.scale = torch.tensor([1 / (255 * s) for s in std], device=device).view(3, 1, 1)
        shift = [-m / s for m, s in zip(mean, std, strict=True)]
        self.shift = torch.tensor(shift, device=device).view(3, 1, 1)
        self.device = device

    def __call__(self, images: Tensor) -> Tensor:
        if self.device.type == "cuda" and images.device.type == "cpu":
            images = images.pin_memory()  # the copy then runs beside the host
        return images.to(self.device, non_blocking=True).float() * self.scale + self.shift
