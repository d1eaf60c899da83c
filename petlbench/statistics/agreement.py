"""Do two methods make the same mistakes, and does it help to ask both?

Predictions are (S, N): of every seed, the class of every test example.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Classes = NDArray[np.integer[Any]]
Right = NDArray[np.bool_]


@dataclass(frozen=True)
class Agreement:
    """On one task; shares of the test examples, means over seeds."""

    kappa: float | None  # of being right; None if a method is always right, or always wrong
    both_wrong: float
    by_chance: float  # both wrong, were they wrong independently
    ensemble: float  # accuracy of the vote of all runs of both
    ensemble_a: float  # of the runs of one alone: what voting gives without the other
    ensemble_b: float


def agreement(a: Classes, b: Classes, labels: Classes) -> Agreement:
    """Of the (S, N) predictions of two methods, paired by seed, and the (N,) labels."""
    right_a, right_b = a == labels, b == labels
    kappas = [kappa(x, y) for x, y in zip(right_a, right_b, strict=True)]
    defined = [value for value in kappas if value is not None]
    better, other = (a, b) if right_a.mean() >= right_b.mean() else (b, a)
    return Agreement(
        kappa=float(np.mean(defined)) if defined else None,
        both_wrong=float((~right_a & ~right_b).mean()),
        by_chance=float(((1 - right_a.mean(axis=1)) * (1 - right_b.mean(axis=1))).mean()),
        ensemble=float((plurality(better, other) == labels).mean()),
        ensemble_a=float((plurality(a, a) == labels).mean()),
        ensemble_b=float((plurality(b, b) == labels).mean()),
    )


def kappa(a: Right, b: Right) -> float | None:
    """Cohen's kappa (1960) of (N,) right or wrong: 1 the same examples, 0 as if by chance.

    None if one of them is always right or always wrong: there is nothing to agree on.
    """
    if a.all() or b.all() or not a.any() or not b.any():
        return None
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance))


def plurality(better: Classes, other: Classes) -> Classes:
    """(N,) the class that most of the 2 S runs predict.

    Of classes with equally many votes the one with more of the `better` method's, then the
    smallest. With one seed every disagreement is such a tie: the ensemble is the better method.
    """
    classes = int(max(better.max(), other.max())) + 1
    votes = _votes(better, classes), _votes(other, classes)
    # more votes always win: those of the better method are fewer than the factor
    score = (len(better) + 1) * (votes[0] + votes[1]) + votes[0]
    found: Classes = score.argmax(axis=1)
    return found


def _votes(predictions: Classes, classes: int) -> Classes:
    """(N, C) of (S, N)."""
    examples = predictions.shape[1]
    cells = np.arange(examples) * classes + predictions
    return np.bincount(cells.ravel(), minlength=examples * classes).reshape(examples, classes)
