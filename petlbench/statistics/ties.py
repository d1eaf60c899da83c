"""Which methods can be told apart, and the groups of those that cannot."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from petlbench.statistics import LEVEL
from petlbench.statistics.bootstrap import Bootstrap
from petlbench.statistics.panel import Array

Flags = NDArray[np.bool_]


def pairs(methods: int) -> int:
    """How many questions `apart` asks at once."""
    return methods * (methods - 1) // 2


def apart(boot: Bootstrap, column: str, over_tasks: bool = False, of: Array | None = None) -> Flags:
    """(methods, methods): which pairs differ, all of them at once with 95% certainty.

    A difference is told where it is Bonferroni's normal quantile times its standard error or more
    (`Bootstrap.errors`, with Student's t for few seeds). The largest studentised difference of
    a resample (max-t) would be a little less, and far too little where few seeds and tasks leave
    more methods than deviations. `of` (points, methods): combinations of methods instead.
    """
    points = np.eye(len(boot.panel.methods)) if of is None else of
    i, j = np.triu_indices(len(points), 1)
    found = np.zeros((len(points), len(points)), dtype=bool)
    found[i, j] = found[j, i] = _told(boot, column, points[i] - points[j], over_tasks)
    return found


def apart_from_best(boot: Bootstrap, column: str) -> Flags:
    """(methods,): which differ from the best one; `apart` of these pairs alone.

    What does not differ holds the method that is truly best with 95% certainty.
    """
    methods = np.eye(len(boot.panel.methods))
    best = int(np.argmax(boot.panel.mean(column)))
    told = _told(boot, column, methods[best] - np.delete(methods, best, axis=0))
    return np.insert(told, best, False)


def _told(boot: Bootstrap, column: str, differences: Array, over_tasks: bool = False) -> Flags:
    """(questions,): which of these differences are not 0, asked at once."""
    errors = boot.errors(column, differences, over_tasks, at_once=len(differences))
    size = np.abs(differences @ boot.panel.mean(column))
    return np.asarray((size > critical(len(differences)) * errors) & (errors > 0))


def critical(questions: int) -> float:
    """How many standard errors a difference must be, of so many asked about at once."""
    return float(ndtri(1 - (1 - LEVEL) / 2 / max(questions, 1)))


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
