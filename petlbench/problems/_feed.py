"""Batches of training images, on the way into a backbone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from petlbench.backbone import Backbone
from petlbench.data.normalise import Normalise
from petlbench.data.vault import Data
from petlbench.evaluate import outputs

FEATURES_AT_MOST = 2 * 2**30  # bytes kept in memory of what is frozen in front

# (epoch, batches of indices (B,) on the CPU) -> what the model takes from stage `start` on
Feed = Callable[[int, Sequence[Tensor]], Iterator[Tensor]]


def feed(model: Backbone, data: Data, rules: dict[str, Any], seed: int) -> tuple[Feed, int]:
    """Batches, and the stage of the backbone (`encode`) at which they enter it.

    Without augmentation, what is frozen in front is computed once per image.
    """
    device = next(model.parameters()).device
    if rules["augmentation"] != "none":
        from petlbench.data.augment import Augmented  # its libraries take a second to import

        augmented = Augmented(data.split, rules, seed, data.workers)

        def made(epoch: int, order: Sequence[Tensor]) -> Iterator[Tensor]:
            for images in augmented.epoch(epoch, torch.cat(list(order)), len(order[0])):
                yield images.to(device)

        return made, 0
    normalise = Normalise(rules["mean"], rules["std"], device)
    pixels, stages = resident(torch.from_numpy(data.images.pixels), device), model.frozen_stages()

    def frozen(images: Tensor) -> Tensor:
        encode = partial(model.eval().encode, stop=stages)
        bf16 = rules["precision"] == "bf16"
        return outputs(lambda batch: encode(normalise(batch)), images, device, bf16)

    # an embedding alone is not worth the memory
    if stages > 1 and frozen(pixels[:1]).nbytes * len(pixels) <= FEATURES_AT_MOST:
        features = frozen(pixels)
        return lambda epoch, order: (features[of(chosen, features)] for chosen in order), stages
    return lambda epoch, order: (normalise(pixels[of(chosen, pixels)]) for chosen in order), 0


def of(chosen: Tensor, values: Tensor) -> Tensor:
    """The indices where the values are."""
    return chosen.to(values.device, non_blocking=True)


def resident(pixels: Tensor, device: torch.device) -> Tensor:
    """The images on the device where they take up at most a quarter of its memory."""
    if device.type == "cuda":
        _, memory = torch.cuda.mem_get_info(device)
        return pixels.to(device) if pixels.nbytes <= memory // 4 else pixels
    return pixels.to(device)
