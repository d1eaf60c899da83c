"""A function of many items by several threads, its results in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def in_order(
    function: Callable[[A], B], items: Sequence[A], threads: int = 0
) -> Generator[B, None, None]:
    """`function` of each item, a few ahead of the caller; `threads` 0: one per core, at most 16.

    After an error or Ctrl-C what has been begun is finished, and no more.
    """
    from PIL import Image

    Image.preinit()
    Image.init()  # now: two threads that load formats at the same time can miss them
    threads = threads or min(16, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(threads)
    try:
        pending: deque[Future[B]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) > 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
