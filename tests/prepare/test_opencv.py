"""Against what OpenCV 5.0.0 (opencv-python-headless, x86-64) made of the same pixels."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench.prepare import opencv


def image(height: int, width: int) -> opencv.Pixels:
    y, x, c = np.ogrid[:height, :width, :3]
    return ((x * x * 7 + y * y * 13 + x * y * 5 + c * 91) % 256).astype(np.uint8)


def digest(pixels: np.ndarray) -> str:  # type: ignore[type-arg]
    return hashlib.sha256(pixels.tobytes()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("size", "factor", "scaled", "expected"),
    [
        ((123, 77), 0.9, (111, 69, 3), "91fe10ac89055784"),
        ((64, 60), 4.7, (301, 282, 3), "0c7adadf21587ebc"),
        ((480, 640), (120_000 / (640 * 480)) ** 0.5, (300, 400, 3), "315e1c8e4ca56272"),
        ((301, 203), 300 / 611.5, (148, 100, 3), "e504ed1377e8ef92"),
    ],
)
def test_scale(
    size: tuple[int, int], factor: float, scaled: tuple[int, ...], expected: str
) -> None:
    pixels = opencv.scale(image(*size), factor)
    assert pixels.shape == scaled and digest(pixels) == expected


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [(1.0, "40970af0d1a99f21"), (2.5, "2f895f21eb014142"), (10.0, "1a3ead133b208d3c")],
)
def test_blur(sigma: float, expected: str) -> None:
    assert digest(opencv.blur(image(90, 120), sigma)) == expected


@pytest.mark.parametrize(
    ("radius", "count", "expected"),
    [
        (1, 5, "1966de8534bd4d04"),
        (5, 81, "6ec7c34dd991a462"),
        (27, 2289, "65e3f3542f299b6c"),
        (270, 4260, "9faf70bdb0cd5628"),
    ],
)
def test_disc(radius: int, count: int, expected: str) -> None:
    inside = opencv.disc(60, 71, radius)
    assert inside.sum() == count and digest(inside) == expected


@given(st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 5), st.integers(0, 255))
def test_a_flat_image_stays_flat(height: int, width: int, factor: float, level: int) -> None:
    flat = np.full((height, width, 3), level, dtype=np.uint8)
    scaled = opencv.scale(flat, factor)
    assert scaled.shape == (round(height * factor), round(width * factor), 3)
    assert (scaled == level).all() and (opencv.blur(flat, 1.5) == level).all()


def test_jpeg_loses_less_at_higher_quality() -> None:
    smooth = opencv.blur(image(64, 64), 3)
    losses = [
        np.abs(np.asarray(opencv.jpeg(smooth, quality)).astype(int) - smooth).mean()
        for quality in (20, 72, 95)
    ]
    assert losses == sorted(losses, reverse=True) and losses[0] > losses[-1] and losses[1] < 8
