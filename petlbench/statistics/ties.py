"""Which methods can be told apart, and the groups of those that cannot."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from petlbench.statistics.panel import Array

Flags = NDArray[np.bool_]


def apart(values: Array, draws: Array, level: float = 0.95) -> Flags:
    """(methods, methods): which pairs differ, all of them at once with probability `level`.

    The largest studentised difference over all pairs of a resample bounds every pair
    (single-step max-t; Westfall and Young 1993, ch. 2). `values` (methods,), `draws` (count,
    methods) around them. A pair that never moves apart in any resample is not told apart.
    """
    critical, scale = bound(values, draws, level)
    return np.asarray((np.abs(values[:, None] - values) > critical * scale) & (scale > 0))


def bound(values: Array, draws: Array, level: float = 0.95) -> tuple[float, Array]:
    """How many times its scale a difference must be for `apart`, and the scales of all pairs."""
    methods = len(values)
    moved = draws - values
    scale = np.sqrt(_variance(moved))
    largest = np.zeros(len(draws))
    for i in range(methods - 1):
        gap = np.abs(moved[:, i, None] - moved[:, i + 1 :])
        room = scale[i, i + 1 :]
        found = np.divide(gap, room, where=room > 0, out=np.zeros_like(gap))
        largest = np.maximum(largest, found.max(axis=1))
    return float(np.quantile(largest, level)), scale


def apart_from_best(values: Array, draws: Array, level: float = 0.95) -> Flags:
    """(methods,): which differ from the best one; `apart` of these pairs alone."""
    best = int(np.argmax(values))
    moved = draws - values
    gap = np.abs(moved - moved[:, best, None])
    scale = np.sqrt((gap**2).mean(axis=0))
    studentised = np.divide(gap, scale, where=scale > 0, out=np.zeros_like(gap))
    critical = np.quantile(studentised.max(axis=1), level)
    return np.asarray((values[best] - values > critical * scale) & (scale > 0))


def _variance(moved: Array) -> Array:
    """(methods, methods): mean squared difference of the deviations of each pair."""
    products = moved.T @ moved / len(moved)
    own = products.diagonal()
    found = own[:, None] + own - 2 * products
    return np.where(found > 1e-15, found, 0.0)  # what is left of rounding is none


def letters(apart: Flags) -> list[str]:
    """A compact letter display: two methods share a letter exactly if they are not told apart.

    Insert and absorb (Piepho 2004, J. Comput. Graph. Stat. 13). `apart` (methods, methods) is
    symmetric; methods come best first, so the best one's letters begin with a.
    """
    groups = [frozenset(range(len(apart)))]
    for i, j in zip(*np.nonzero(np.triu(apart)), strict=True):
        split = [g - {k} for g in groups if {i, j} <= g for k in (i, j)]
        groups = [g for g in groups if not {i, j} <= g]
        for group in sorted(split, key=len, reverse=True):
            if not any(group <= other for other in groups):
                groups.append(group)
    groups.sort(key=sorted)
    return ["".join(_letter(n) for n, g in enumerate(groups) if m in g) for m in range(len(apart))]


def _letter(number: int) -> str:
    """a to z, then a2 to z2, and so on."""
    round_, place = divmod(number, 26)
    return chr(ord("a") + place) + (str(round_ + 1) if round_ else "")
