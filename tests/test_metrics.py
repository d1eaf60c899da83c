"""Metrics against scikit-learn, and against what can be worked out by hand."""

from __future__ import annotations

import time
import warnings
from random import Random

import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from petlbench import metrics

Case = tuple[NDArray[np.int64], NDArray[np.float64]]


@st.composite
def cases(draw: st.DrawFn, classes: int | None = None) -> Case:
    """Labels and probabilities with many ties: each row is drawn from few weights."""
    width = classes or draw(st.integers(2, 6))
    row = st.tuples(
        st.integers(0, width - 1), st.lists(st.integers(1, 4), min_size=width, max_size=width)
    )
    rows = draw(st.lists(row, min_size=1, max_size=40))
    weights = np.array([weight for _, weight in rows], dtype=np.float64)
    labels = np.array([label for label, _ in rows], dtype=np.int64)
    return labels, weights / weights.sum(axis=1, keepdims=True)


def one(classes: int, *rows: tuple[int, int]) -> Case:
    """(label, predicted class) -> labels and one-hot scores."""
    return np.array([label for label, _ in rows]), np.eye(classes)[[guess for _, guess in rows]]


@given(cases())
def test_accuracy_balanced_accuracy_and_f1_are_those_of_scikit_learn(case: Case) -> None:
    labels, scores = case
    found = metrics.classification(labels, scores, scores.shape[1])
    guessed = scores.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(reference.accuracy_score(labels, guessed))
    with warnings.catch_warnings():  # it warns of predicted classes that do not occur
        warnings.simplefilter("ignore")
        recall = reference.balanced_accuracy_score(labels, guessed)
    assert found["balanced_accuracy"] == pytest.approx(recall)
    f1 = reference.f1_score(labels, guessed, average="macro", zero_division=0)
    assert found["macro_f1"] == pytest.approx(f1)


@given(cases())
def test_kappa_is_that_of_scikit_learn(case: Case) -> None:
    labels, scores = case
    grades, guessed = np.arange(scores.shape[1]), scores.argmax(axis=1)
    found = metrics.classification(labels, scores, len(grades), ordinal=True)
    if len({*labels, *guessed}) == 1:
        assert "quadratic_kappa" not in found
        return
    kappa = reference.cohen_kappa_score(labels, guessed, labels=grades, weights="quadratic")
    assert found["quadratic_kappa"] == pytest.approx(kappa, abs=1e-12)


@given(cases(classes=2))
def test_auroc_of_two_classes_is_that_of_scikit_learn(case: Case) -> None:
    labels, scores = case
    found = metrics.auroc(labels, scores)
    if len(set(labels)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(reference.roc_auc_score(labels, scores[:, 1]))


@given(cases())
def test_auroc_is_the_mean_over_the_classes_that_have_both_signs(case: Case) -> None:
    labels, scores = case
    present = sorted(set(labels))
    found = metrics.auroc(labels, scores)
    if len(present) == 1:
        assert found is None
    elif scores.shape[1] > 2:
        areas = [reference.roc_auc_score(labels == c, scores[:, c]) for c in present]
        assert found == pytest.approx(np.mean(areas))


@given(cases(classes=4))
def test_auroc_of_many_classes_is_that_of_scikit_learn(case: Case) -> None:
    labels, scores = case
    if len(set(labels)) == 4:  # scikit-learn refuses otherwise
        expected = reference.roc_auc_score(labels, scores, multi_class="ovr", average="macro")
        assert metrics.auroc(labels, scores) == pytest.approx(expected)


@given(cases(), st.randoms())
def test_the_order_of_the_images_does_not_matter(case: Case, random: Random) -> None:
    labels, scores = case
    order = list(range(len(labels)))
    random.shuffle(order)
    forward = metrics.classification(labels, scores, scores.shape[1], ordinal=True)
    shuffled = metrics.classification(labels[order], scores[order], scores.shape[1], ordinal=True)
    assert forward == shuffled


def test_a_case_worked_by_hand() -> None:
    labels, scores = one(4, (0, 0), (0, 1), (1, 1), (1, 1), (1, 0), (2, 1))
    found = metrics.classification(labels, scores, 4, ordinal=True)
    assert found["accuracy"] == pytest.approx(3 / 6)
    assert found["balanced_accuracy"] == pytest.approx((1 / 2 + 2 / 3 + 0) / 3)
    assert found["macro_f1"] == pytest.approx((2 / 4 + 4 / 7 + 0) / 3)  # class 3 never occurs
    # squared distances 3 of 6; by chance: labels 2, 3, 1 times and predictions 2, 4 times of 6
    assert found["quadratic_kappa"] == pytest.approx(1 - 3 / ((2 * 4 + 3 * 2 + 1 * 2 * 4 + 4) / 6))
    # of one threshold: (1 + hits - false alarms) / 2, for classes 0, 1 and 2
    areas = [(1 + 1 / 2 - 1 / 4) / 2, (1 + 2 / 3 - 2 / 3) / 2, (1 + 0 - 0) / 2]
    assert found["auroc"] == pytest.approx(np.mean(areas))


def test_ties_count_half() -> None:
    labels = np.array([0, 1, 0, 1])
    column = np.array([0.1, 0.5, 0.5, 0.5])
    scores = np.stack([1 - column, column], axis=1)
    # pairs (positive, negative): two are won, two are tied
    assert metrics.auroc(labels, scores) == (2 + 2 / 2) / 4
    assert metrics.auroc(labels, np.full((4, 2), 0.5)) == 0.5


def test_of_equal_scores_the_first_is_predicted() -> None:
    labels = np.array([0, 1])
    assert metrics.classification(labels, np.full((2, 2), 0.5), 2)["accuracy"] == 0.5


def test_one_class_only() -> None:
    labels, scores = one(3, (1, 1), (1, 1))
    found = metrics.classification(labels, scores, 3, ordinal=True)
    assert found == {"accuracy": 1.0, "balanced_accuracy": 1.0, "macro_f1": 1.0}
    labels, scores = one(3, (1, 1), (1, 2))
    found = metrics.classification(labels, scores, 3, ordinal=True)
    assert found["balanced_accuracy"] == 0.5
    assert found["macro_f1"] == pytest.approx((2 / 3 + 0) / 2)  # class 2 was only predicted
    assert found["quadratic_kappa"] == 0.0
    assert "auroc" not in found


def test_kappa_is_left_out_where_labels_are_not_grades() -> None:
    labels, scores = one(2, (0, 0), (1, 1))
    assert "quadratic_kappa" not in metrics.classification(labels, scores, 2)
    assert metrics.classification(labels, scores, 2, ordinal=True)["quadratic_kappa"] == 1.0


def test_kappa_tells_near_misses_from_far_ones() -> None:
    near = metrics.classification(*one(5, (0, 0), (4, 4), (0, 1), (4, 3)), 5, ordinal=True)
    far = metrics.classification(*one(5, (0, 0), (4, 4), (0, 4), (4, 0)), 5, ordinal=True)
    assert near["accuracy"] == far["accuracy"]
    assert near["quadratic_kappa"] > 0.8 > far["quadratic_kappa"]


def test_values_are_plain_numbers() -> None:
    labels, scores = one(3, (0, 0), (1, 2), (2, 2))
    found = metrics.classification(labels, scores.astype(np.float32), 3, ordinal=True)
    assert list(found) == ["accuracy", "balanced_accuracy", "macro_f1", "auroc", "quadratic_kappa"]
    assert {type(value) for value in found.values()} == {float}


@pytest.mark.parametrize(
    ("labels", "scores", "classes", "message"),
    [
        ([0, 1], np.zeros((3, 2)), 2, "are not those of 2 classes"),
        ([0, 1], np.zeros((2, 3)), 2, "are not those of 2 classes"),
        ([0, 1], np.zeros(2), 2, "are not those of 2 classes"),
        ([0, 2], np.zeros((2, 2)), 2, "labels must be in 0..1."),
        ([-1, 0], np.zeros((2, 2)), 2, "labels must be in 0..1."),
        ([], np.zeros((0, 2)), 2, "no labels"),
        ([0, 1], np.full((2, 2), np.nan), 2, "finite"),
    ],
)
def test_what_does_not_belong_together_is_refused(
    labels: list[int], scores: NDArray[np.float64], classes: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        metrics.classification(np.array(labels, dtype=np.int64), scores, classes)


@pytest.mark.parametrize(("images", "classes"), [(73_728, 16), (40_000, 397)])
def test_large_test_sets_take_seconds(images: int, classes: int) -> None:
    noise = np.random.default_rng(0)
    labels, scores = noise.integers(0, classes, images), noise.random((images, classes))
    start = time.process_time()
    found = metrics.classification(labels, scores, classes)
    assert time.process_time() - start < 20  # measured: 1 s
    assert found["auroc"] == pytest.approx(0.5, abs=0.02)
