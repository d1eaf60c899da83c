"""Metrics of classification: pure functions of labels and scores, in float64.

`labels` are (N,) integers in 0..C-1 and `scores` (N, C) finite floats; the class of the highest
score is predicted (of equal ones the first). Values are fractions in [0, 1], kappa is in [-1, 1].
The definitions are those of scikit-learn's functions of the same names. What is not defined for
the labels at hand is None, never a number that could be averaged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Labels = NDArray[np.integer[Any]]
Scores = NDArray[np.floating[Any]]
Counts = NDArray[np.int64]

LEAST = {"quadratic_kappa": -1.0}  # 0 of any other metric


def classification(
    labels: Labels, scores: Scores, classes: int, ordinal: bool = False
) -> dict[str, float]:
    """Every metric that is defined here; quadratic kappa only where labels are grades.

    `scores` are probabilities: the area under the curve of a class compares them across images.
    Raises ValueError where shapes, labels and scores do not belong together.
    """
    check(labels, scores, classes)
    counts = confusion(labels, scores)
    found = {
        "accuracy": accuracy(counts),
        "balanced_accuracy": balanced_accuracy(counts),
        "macro_f1": macro_f1(counts),
        "auroc": auroc(labels, scores),
        "quadratic_kappa": quadratic_kappa(counts) if ordinal else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def check(labels: Labels, scores: Scores, classes: int) -> None:
    if scores.ndim != 2 or labels.shape != scores.shape[:1] or scores.shape[1] != classes:
        raise ValueError(
            f"labels {labels.shape} and scores {scores.shape} are not those of {classes} classes."
        )
    if not len(labels):
        raise ValueError("there is nothing to measure: no labels.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be in 0..{classes - 1}.")
    if not np.isfinite(scores).all():
        raise ValueError("scores must be finite.")


def confusion(labels: Labels, scores: Scores) -> Counts:
    """(C, C) how often label i was predicted as j."""
    classes = scores.shape[1]
    cells = labels.astype(np.int64) * classes + scores.argmax(axis=1)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def accuracy(counts: Counts) -> float:
    """The share of images whose class was predicted."""
    return float(counts.trace() / counts.sum())


def balanced_accuracy(counts: Counts) -> float:
    """The mean recall of the classes that occur among the labels."""
    occurs = counts.sum(axis=1)
    return float(np.mean(counts.diagonal()[occurs > 0] / occurs[occurs > 0]))


def macro_f1(counts: Counts) -> float:
    """The mean F1 of the classes that occur among labels or predictions; 0 without a hit."""
    occurs = counts.sum(axis=0) + counts.sum(axis=1)  # 2 hits + misses + false alarms
    return float(np.mean(2 * counts.diagonal()[occurs > 0] / occurs[occurs > 0]))


def auroc(labels: Labels, scores: Scores) -> float | None:
    """The area under the ROC curve: how often an image of a class scores above another, ties half.

    With two classes that of class 1 by its own column; with more the mean over the classes, each
    against the rest, that some but not all images have. None where no class is such.
    """
    columns = [1] if scores.shape[1] == 2 else range(scores.shape[1])
    areas = [_area(scores[:, column], labels == column) for column in columns]
    defined = [area for area in areas if area is not None]
    return float(np.mean(defined)) if defined else None


def _area(scores: NDArray[np.floating[Any]], positive: NDArray[np.bool_]) -> float | None:
    """Mann-Whitney's U as a share of all pairs; equal scores have the mean of their ranks."""
    chosen = scores[positive]
    pairs = len(chosen) * (len(scores) - len(chosen))
    if not pairs:
        return None
    ordered = np.sort(scores)
    below = np.searchsorted(ordered, chosen, "left").sum(dtype=np.int64)
    up_to = np.searchsorted(ordered, chosen, "right").sum(dtype=np.int64)
    # both sums count pairs of positives, which are len(chosen)^2 in all: exact in integers
    return float((below + up_to - len(chosen) ** 2) / (2 * pairs))


def quadratic_kappa(counts: Counts) -> float | None:
    """Cohen's kappa with squared distances of grades: 1 - observed / expected by chance.

    None where both raters always give one and the same grade.
    """
    grades = np.arange(len(counts))
    distance = (grades[:, None] - grades) ** 2
    by_chance = np.outer(counts.sum(axis=1), counts.sum(axis=0)) / counts.sum()
    expected = (distance * by_chance).sum()
    return float(1 - (distance * counts).sum() / expected) if expected else None
