"""What each test example adds to a score: numbers (n,) whose mean is the metric.

Of accuracy they are 1 and 0. Any other metric is linearised at the data: an example adds the
metric plus its influence on it (the infinitesimal jackknife; Efron and Tibshirani 1993, ch. 21),
so that the variance of the mean is that of the metric, to first order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench import metrics

Array = NDArray[np.float64]
_STEP = 1e-4  # of a count, for derivatives


def contributions(arrays: Mapping[str, NDArray[Any]], metric: str) -> Array | None:
    """Of one test, from what is kept of it (`Outcome.arrays`); None where that does not suffice."""
    if "labels" in arrays:
        return _of_classes(arrays["labels"], arrays["predictions"], metric)
    return _of_queries(arrays, metric)


def _of_classes(labels: NDArray[Any], predictions: NDArray[Any], metric: str) -> Array | None:
    if metric == "accuracy":
        return np.asarray(labels == predictions, dtype=float)
    of_counts: Callable[[NDArray[Any]], float] | None = {
        "balanced_accuracy": metrics.balanced_accuracy,
        "macro_f1": metrics.macro_f1,
        "quadratic_kappa": metrics.quadratic_kappa,
    }.get(metric)  # type: ignore[assignment]  # kappa is None only where there is one grade
    if of_counts is None:  # the area under a curve needs scores, and classes are kept
        return None
    classes = int(max(labels.max(), predictions.max())) + 1
    cells, cell_of = np.unique(labels * classes + predictions, return_inverse=True)
    counts = np.bincount(labels * classes + predictions, minlength=classes**2).astype(float)
    slope = np.empty(len(cells))
    for i, cell in enumerate(cells):
        there = []
        for step in (_STEP, -_STEP):
            moved = counts.copy()
            moved[cell] += step
            there.append(of_counts(moved.reshape(classes, classes)))
        slope[i] = (there[0] - there[1]) / (2 * _STEP)
    # metrics do not change with the scale of all counts, so the slopes have mean 0 over examples
    return of_counts(counts.reshape(classes, classes)) + len(labels) * slope[cell_of]


def _of_queries(arrays: Mapping[str, NDArray[Any]], metric: str) -> Array | None:
    """(images,): an image is an example, together with its captions, which depend on each other.

    None without the image of each caption, which records of earlier versions do not keep.
    """
    if "image_of_text" not in arrays:
        return None
    images = len(arrays["text_rank_of_image"])
    ways = {  # ranks, and the image of each query
        "i2t": (arrays["text_rank_of_image"], np.arange(images)),
        "t2i": (arrays["image_rank_of_text"], arrays["image_of_text"]),
    }
    way, _, k = metric.partition("_r")
    if metric == "mean_recall":
        chosen, at = list(ways), [1, 5, 10]
    elif way in ways and k.isdecimal():
        chosen, at = [way], [int(k)]
    else:
        return None
    value, moved = 0.0, np.zeros(images)
    for ranks, image in (ways[way] for way in chosen):
        hits = np.mean([ranks < k for k in at], axis=0)
        value += hits.mean() / len(chosen)
        of_image = np.bincount(image, hits - hits.mean(), minlength=images)
        moved += of_image * images / len(hits) / len(chosen)
    return np.asarray(value + moved)
