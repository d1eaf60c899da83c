"""What TFDS does to images with OpenCV, redone with numpy and scipy, to the bit.

OpenCV computes on bytes with fixed-point weights, and so does this; compared with OpenCV 5.0.0 on
a CPU no pixel differed. Versions of it before 4.1 or so, and builds with other code for a
processor, may differ by a grey level.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
"""(height, width, 3)"""


def scale(pixels: Pixels, factor: float) -> Pixels:
    """Like `cv2.resize(fx=factor, fy=factor)`: linear, pixel centres aligned, no smoothing.

    In OpenCV's integers: weights of 11 bits, of which the products lose 4 and 16 and 2.
    """
    low, high, first, second = _taps(pixels.shape[1], factor)
    wide = pixels.astype(np.int32)
    wide = wide[:, low] * first[:, None] + wide[:, high] * second[:, None]
    low, high, first, second = _taps(pixels.shape[0], factor)
    above = ((wide[low] >> 4) * first[:, None, None]) >> 16
    below = ((wide[high] >> 4) * second[:, None, None]) >> 16
    return ((above + below + 2) >> 2).clip(0, 255).astype(np.uint8)


def _taps(size: int, factor: float) -> tuple[NDArray[np.int32], ...]:
    """Along one side of the result: two pixels of the source, and 2048 times their weights."""
    count = int(np.rint(size * factor))
    centre = ((np.arange(count) + 0.5) * (1 / factor) - 0.5).astype(np.float32)
    low = np.floor(centre)
    first, second = np.rint((1 - (centre - low)) * 2048), np.rint((centre - low) * 2048)
    ends = (low.clip(0, size - 1), (low + 1).clip(0, size - 1))  # edges repeat
    return tuple(values.astype(np.int32) for values in (*ends, first, second))


def blur(pixels: Pixels, sigma: float) -> Pixels:
    """Like `cv2.GaussianBlur(ksize=(0, 0), sigma)` on bytes: 3 sigma wide, mirrored at the edges.

    In OpenCV's integers: weights of 8 bits that sum to 256, rounded once at the end.
    """
    from scipy.ndimage import correlate1d

    weights = _gaussian(sigma)
    once = correlate1d(pixels.astype(np.int32), weights, axis=1, mode="mirror")
    twice = correlate1d(once, weights, axis=0, mode="mirror")
    rounded: Pixels = ((twice + (1 << 15)) >> 16).clip(0, 255).astype(np.uint8)
    return rounded


def _gaussian(sigma: float) -> NDArray[np.int64]:
    """256 times the weights, what rounding loses of one being carried on to the next."""
    half = (int(np.rint(sigma * 6 + 1)) | 1) // 2
    exact = np.exp(-(np.arange(-half, half + 1) ** 2) / (2 * sigma**2))
    side, carried = [], 0.0
    for weight in exact[:half] / exact.sum() * 256:
        side.append(round(weight + carried))
        carried += weight - side[-1]
    return np.array([*side, 256 - 2 * sum(side), *side[::-1]])


def disc(height: int, width: int, radius: int) -> NDArray[np.bool_]:
    """(height, width): where a filled circle like `cv2.circle`'s lies, around the middle."""
    y, x = np.ogrid[:height, :width]
    inside: NDArray[np.bool_] = (y - height // 2) ** 2 + (x - width // 2) ** 2 <= radius**2
    return inside


def jpeg(pixels: Pixels, quality: int) -> Image.Image:
    """What is left of the pixels after JPEG, with halved chroma like OpenCV's."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    with Image.open(buffer) as image:
        return image.convert("RGB")
