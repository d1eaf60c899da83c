"""What examples add: means are the metrics, variances those of closed forms and of resampling."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from petlbench import metrics, recall
from petlbench.statistics.examples import contributions

Ints = NDArray[np.int64]
OF_COUNTS: dict[str, Callable[[Ints], float | None]] = {
    "accuracy": metrics.accuracy,
    "balanced_accuracy": metrics.balanced_accuracy,
    "macro_f1": metrics.macro_f1,
    "quadratic_kappa": metrics.quadratic_kappa,
}


def classified(n: int, classes: int = 5, seed: int = 0) -> dict[str, Ints]:
    """Uneven classes, grades mistaken for their neighbours."""
    rng = np.random.default_rng(seed)
    labels = np.minimum(rng.geometric(0.4, n) - 1, classes - 1)
    moved = labels + rng.choice([-1, 0, 1], n, p=[0.15, 0.7, 0.15])
    return {"labels": labels, "predictions": moved.clip(0, classes - 1)}


def table(labels: Ints, predictions: Ints, classes: int) -> Ints:
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


@given(
    st.sampled_from(sorted(OF_COUNTS)),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=3, max_size=40),
)
def test_the_mean_is_the_metric(metric: str, pairs: list[tuple[int, int]]) -> None:
    labels, predictions = np.array([*pairs, (0, 1)]).T  # two grades: kappa is defined
    added = contributions({"labels": labels, "predictions": predictions}, metric)
    assert added is not None and added.shape == labels.shape
    expected = OF_COUNTS[metric](table(labels, predictions, 5))
    assert added.mean() == pytest.approx(expected, abs=1e-6)


def test_accuracy_is_right_or_wrong() -> None:
    arrays = {"labels": np.array([0, 1, 2]), "predictions": np.array([0, 2, 2])}
    assert contributions(arrays, "accuracy") == pytest.approx([1, 0, 1])  # type: ignore[comparison-overlap]


def test_balanced_accuracy_in_closed_form() -> None:
    arrays = classified(300)
    labels, hit = arrays["labels"], arrays["labels"] == arrays["predictions"]
    sizes = np.bincount(labels)
    recalls = np.bincount(labels, hit) / sizes
    influence = (hit - recalls[labels]) / sizes[labels] / len(sizes) * len(labels)
    added = contributions(arrays, "balanced_accuracy")
    np.testing.assert_allclose(added, recalls.mean() + influence, atol=1e-6)
    # the variance of a mean of independent recalls
    expected = (recalls * (1 - recalls) / sizes).sum() / len(sizes) ** 2
    assert added is not None
    assert added.var() / len(labels) == pytest.approx(expected, rel=1e-6)


def test_macro_f1_in_closed_form() -> None:
    arrays = classified(300)
    labels, predictions = arrays["labels"], arrays["predictions"]
    classes = 5
    influence = np.zeros(len(labels))
    scores = []
    for c in range(classes):
        both = (labels == c).sum() + (predictions == c).sum()
        f1 = 2 * ((labels == c) & (predictions == c)).sum() / both
        per_example = 2.0 * ((labels == c) & (predictions == c))
        per_example -= f1 * ((labels == c).astype(float) + (predictions == c))
        influence += per_example / both * len(labels) / classes
        scores.append(f1)
    added = contributions(arrays, "macro_f1")
    np.testing.assert_allclose(added, np.mean(scores) + influence, atol=1e-6)


@pytest.mark.parametrize("metric", sorted(OF_COUNTS))
def test_the_variance_is_that_of_resampling(metric: str) -> None:
    n, classes = 800, 5
    arrays = classified(n, classes)
    added = contributions(arrays, metric)
    assert added is not None
    counts = table(arrays["labels"], arrays["predictions"], classes)
    rng = np.random.default_rng(1)
    drawn = rng.multinomial(n, counts.ravel() / n, 5000).reshape(-1, classes, classes)
    values = np.array([OF_COUNTS[metric](each) for each in drawn], dtype=float)
    assert np.sqrt(added.var() / n) == pytest.approx(values.std(), rel=0.04)


@pytest.mark.parametrize("metric", recall.METRICS)
def test_recalls(metric: str) -> None:
    """Against drawing images, each with its captions, again and again."""
    rng = np.random.default_rng(2)
    images = 400
    owners = np.repeat(np.arange(images), rng.integers(1, 6, images))
    hard = rng.normal(size=images)  # captions of one image are found or missed together
    i2t = np.exp(1 + 2 * hard + rng.normal(size=images)).astype(int)
    t2i = np.exp(2 + 2 * hard[owners] + rng.normal(size=len(owners))).astype(int)
    ranks = {"text_rank_of_image": i2t, "image_rank_of_text": t2i, "image_of_text": owners}
    added = contributions(ranks, metric)
    assert added is not None and added.shape == (images,)
    expected = recall.of_ranks(torch.from_numpy(i2t), torch.from_numpy(t2i))[metric]
    assert added.mean() == pytest.approx(expected, abs=1e-12)

    def recalls(times: NDArray[np.int64]) -> dict[str, float]:
        weights = {"i2t": (i2t, times), "t2i": (t2i, times[owners])}
        found = {
            f"{way}_r{k}": float(np.average(rank < k, weights=weight))
            for way, (rank, weight) in weights.items()
            for k in recall.AT
        }
        return found | {"mean_recall": float(np.mean(list(found.values())))}

    drawn = rng.multinomial(images, np.full(images, 1 / images), 3000)
    values = np.array([recalls(times)[metric] for times in drawn])
    assert np.sqrt(added.var() / images) == pytest.approx(values.std(), rel=0.05)


def test_what_does_not_suffice() -> None:
    assert contributions(classified(20), "auroc") is None
    ranks = {"text_rank_of_image": np.arange(3), "image_rank_of_text": np.arange(3)}
    assert contributions(ranks, "i2t_r1") is None  # of an earlier version
    ranks |= {"image_of_text": np.arange(3)}
    assert contributions(ranks, "i2t_r1") is not None
    assert contributions(ranks, "accuracy") is None
