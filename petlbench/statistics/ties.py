"""Which methods can be told apart, and the groups of those that cannot."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from petlbench.statistics import LEVEL
from petlbench.statistics.panel import Array

Flags = NDArray[np.bool_]


def pairs(methods: int) -> int:
    """How many questions `apart` asks at once."""
    return methods * (methods - 1) // 2


def apart(values: Array, draws: Array) -> Flags:
    """(methods, methods): which pairs differ; any equal pair is among them with 1 - LEVEL.

    `values` (methods,), `draws` (count, methods) around them, made for `pairs` questions at once. A
    pair that never moves apart in any resample is not told apart.
    """
    critical, scale = bound(values, draws)
    return np.asarray((np.abs(values[:, None] - values) > critical * scale) & (scale > 0))


def bound(values: Array, draws: Array) -> tuple[float, Array]:
    """How many times its scale a difference must be for `apart`, and the scales of all pairs.

    Bonferroni's normal quantile. The largest studentised difference of a resample (max-t) would be
    a little less, and far too little where few seeds and tasks leave more methods than deviations.
    """
    return _critical(pairs(len(values))), np.sqrt(_variance(draws - values))


def apart_from_best(values: Array, draws: Array) -> Flags:
    """(methods,): which differ from the best one; `apart` of these pairs alone.

    What does not differ holds the method that is truly best with probability LEVEL. `draws` are
    made for as many questions at once as the best one has rivals.
    """
    best = int(np.argmax(values))
    moved = draws - values
    scale = np.sqrt(_whole(((moved - moved[:, best, None]) ** 2).mean(axis=0)))
    critical = _critical(len(values) - 1)
    return np.asarray((values[best] - values > critical * scale) & (scale > 0))


def _critical(questions: int) -> float:
    return float(ndtri(1 - (1 - LEVEL) / 2 / max(questions, 1)))


def _variance(moved: Array) -> Array:
    """(methods, methods): mean squared difference of the deviations of each pair."""
    products = moved.T @ moved / len(moved)
    own = products.diagonal()
    return _whole(own[:, None] + own - 2 * products)


def _whole(variance: Array) -> Array:
    """What is left of rounding is none."""
    return np.where(variance > 1e-15, variance, 0.0)


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


def split(letters: str) -> set[str]:
    """The letters of one method: those of "ba2" are b and a2."""
    return set(re.findall(r"[a-z]\d*", letters))


def _letter(number: int) -> str:
    """a to z, then a2 to z2, and so on."""
    round_, place = divmod(number, 26)
    return chr(ord("a") + place) + (str(round_ + 1) if round_ else "")
