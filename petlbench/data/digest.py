"""Digests of decoded pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


def of_pixels(image: Image) -> str:
    """SHA-256 of `<width> <height>\\n` and the RGB bytes: the same for any lossless file format."""
    pixels = image.convert("RGB")
    return hashlib.sha256(f"{image.width} {image.height}\n".encode() + pixels.tobytes()).hexdigest()


def text(digests: Iterable[str], labels: Iterable[int]) -> str:
    """What lies in `<split>.digests`: `<digest of the pixels> <label>` a line, in order."""
    return "".join(f"{d} {label}\n" for d, label in zip(digests, labels, strict=True))
