"""Digests of decoded pixels, several images at a time."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from PIL.Image import Image

A = TypeVar("A")
B = TypeVar("B")
THREADS = min(16, os.cpu_count() or 1)


def of_pixels(image: Image) -> str:
    """SHA-256 of `<width> <height>\\n` and the RGB bytes: the same for any lossless file format."""
    pixels = image.convert("RGB")
    return hashlib.sha256(f"{image.width} {image.height}\n".encode() + pixels.tobytes()).hexdigest()


def text(digests: Iterable[str], labels: Iterable[int]) -> str:
    """What lies in `<split>.digests`: `<digest of the pixels> <label>` a line, in order."""
    return "".join(f"{d} {label}\n" for d, label in zip(digests, labels, strict=True))


def in_order(function: Callable[[A], B], items: Sequence[A]) -> Generator[B, None, None]:
    """`function` of each item, from several threads; results come in order, a few ahead."""
    from PIL import Image

    Image.preinit()
    Image.init()  # now: two threads that load formats at the same time can miss them
    pool = ThreadPoolExecutor(THREADS)
    try:
        ahead: deque[Future[B]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 4 * THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:  # also after an error or Ctrl-C: what has been begun is finished, no more
        pool.shutdown(cancel_futures=True)
