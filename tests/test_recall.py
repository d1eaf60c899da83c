"""Recall against a slow implementation that shares no line with it, and cases worked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from petlbench import recall
from petlbench.errors import RunError, UsageError


def slow(images: Tensor, texts: Tensor, owners: Tensor) -> tuple[list[int], list[int]]:
    """Ranks by sorting every query's candidates, strangers first among equals."""
    scores = (images.double().numpy() @ texts.double().numpy().T).astype(np.float32)
    i2t, t2i = [], []
    for image, row in enumerate(scores):
        order = sorted(range(len(row)), key=lambda t: (-row[t], int(owners[t]) == image))
        i2t.append(next(at for at, t in enumerate(order) if int(owners[t]) == image))
    for text, column in enumerate(scores.T):
        owner = int(owners[text])
        order = sorted(range(len(column)), key=lambda i: (-column[i], i == owner))
        t2i.append(order.index(owner))
    return i2t, t2i


@st.composite
def embeddings(draw: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Up to 12 images, 1 to 4 captions each in any order; of few values, so that scores tie."""
    counts = draw(st.lists(st.integers(1, 4), min_size=1, max_size=12))
    owners = draw(st.permutations([i for i, count in enumerate(counts) for _ in range(count)]))
    noise = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([0, 1, 2, 1000]))
    width = draw(st.integers(1, 5))
    images, texts = (
        torch.from_numpy(noise.integers(-levels, levels + 1, (n, width)).astype(np.float32) / 8)
        for n in (len(counts), len(owners))
    )
    return images, texts, torch.tensor(owners)


@given(embeddings(), st.integers(1, 15))
@hypothesis_settings(deadline=None, max_examples=200)
def test_ranks_are_those_of_sorting(case: tuple[Tensor, Tensor, Tensor], chunk: int) -> None:
    images, texts, owners = case
    i2t, t2i = recall.ranks(images, texts, owners, chunk)
    assert (i2t.dtype, t2i.dtype) == (torch.int64, torch.int64)
    assert (i2t.tolist(), t2i.tolist()) == slow(images, texts, owners)
    # the same out of every chunk, and in the order in which captions come
    whole = recall.ranks(images, texts, owners, 1000)
    assert whole[0].equal(i2t) and whole[1].equal(t2i)
    backwards = recall.ranks(images, texts.flip(0), owners.flip(0), chunk)
    assert backwards[0].equal(i2t) and backwards[1].flip(0).equal(t2i)


@given(embeddings())
@hypothesis_settings(deadline=None)
def test_recalls_are_shares_of_ranks(case: tuple[Tensor, Tensor, Tensor]) -> None:
    found = recall.recall(*case)
    assert tuple(found) == recall.METRICS
    i2t, t2i = slow(*case)
    for way, rank in (("i2t", i2t), ("t2i", t2i)):
        for k in (1, 5, 10):
            assert found[f"{way}_r{k}"] == sum(each < k for each in rank) / len(rank)
    six = list(found.values())[1:]
    assert found["mean_recall"] == pytest.approx(sum(six) / 6) and len(six) == 6


def test_a_case_by_hand() -> None:
    """Three images, of 2, 1 and 2 captions; the scores are the texts themselves.

    caption        a0   a1   b    c0   c1
    image a        5    1    3    2    0       best own 5: rank 0
    image b        4    2    3    3    9       own 3: before it 4, 9 and a tie: rank 3
    image c        5    0    4    3    4       best own 4: before it 5 and a tie: rank 2
    rank of owner  1    1    2    1    1       (a0's, b's and c0's with a tie)
    """
    scores = torch.tensor([[5.0, 1, 3, 2, 0], [4, 2, 3, 3, 9], [5, 0, 4, 3, 4]])
    owners = torch.tensor([0, 0, 1, 2, 2])
    i2t, t2i = recall.ranks(torch.eye(3), scores.T.contiguous(), owners)
    assert i2t.tolist() == [0, 3, 2]
    assert t2i.tolist() == [1, 1, 2, 1, 1]
    found = recall.of_ranks(i2t, t2i)
    assert found == {
        "mean_recall": pytest.approx((1 / 3 + 1 + 1 + 0 + 1 + 1) / 6),
        **{"i2t_r1": 1 / 3, "i2t_r5": 1.0, "i2t_r10": 1.0},
        **{"t2i_r1": 0.0, "t2i_r5": 1.0, "t2i_r10": 1.0},
    }


def test_k_counts_from_one() -> None:
    ranks = torch.tensor([0, 1, 4, 5, 9, 10])
    found = recall.of_ranks(ranks, ranks)
    assert [found[f"i2t_r{k}"] for k in (1, 5, 10)] == [1 / 6, 3 / 6, 5 / 6]


def test_any_own_caption_will_do_and_own_ones_do_not_compete() -> None:
    """All five captions of an image before every stranger: rank 0, not 4, for each of them."""
    images = torch.eye(20)
    owners = torch.arange(20).repeat_interleave(5)
    texts = images[owners] * torch.linspace(0.5, 1, 100)[:, None]
    i2t, t2i = recall.ranks(images, texts, owners)
    assert not i2t.any() and not t2i.any()
    assert set(recall.of_ranks(i2t, t2i).values()) == {1.0}


@pytest.mark.parametrize("chunk", [1, 7, 64, 2048])
@pytest.mark.parametrize("width", [1, 33, 512])
def test_constant_embeddings_earn_nothing(chunk: int, width: int) -> None:
    """Also where a product of floats is rounded differently in the rows that are left over."""
    torch.manual_seed(0)
    one = torch.nn.functional.normalize(torch.randn(1, width), dim=1)
    images, owners = one.expand(37, -1), torch.arange(37).repeat_interleave(3)
    found = recall.recall(images, one.expand(111, -1), owners, chunk)
    assert set(found.values()) == {0.0}


def test_chance_level() -> None:
    """Random embeddings of 400 images and captions: recall at K is about K / 400."""
    torch.manual_seed(0)
    found = recall.recall(torch.randn(400, 32), torch.randn(400, 32), torch.arange(400))
    for k in (1, 5, 10):
        deviation = (k / 400 * (1 - k / 400) / 400) ** 0.5
        assert abs(found[f"i2t_r{k}"] - k / 400) < 4 * deviation
        assert abs(found[f"t2i_r{k}"] - k / 400) < 4 * deviation


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_read_as_they_are(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(9, 8).to(kind), torch.randn(27, 8).to(kind)
    owners = torch.arange(9).repeat(3)
    i2t, t2i = recall.ranks(images, texts, owners)
    assert (i2t.tolist(), t2i.tolist()) == slow(images, texts, owners)


class Largest(TorchDispatchMode):
    """How many numbers the largest tensor that is made has."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.elements = max(self.elements, made.numel())
        return made


def test_the_matrix_of_scores_is_never_whole() -> None:
    images, owners = torch.randn(700, 16), torch.arange(700).repeat_interleave(3)
    texts, chunk = torch.randn(2100, 16), 50
    with Largest() as largest:
        recall.ranks(images, texts, owners, chunk)
    assert chunk * chunk <= largest.elements <= max(len(owners), chunk * max(chunk, 16))
    with Largest() as largest:  # the measure sees it where it is
        recall.ranks(images, texts, owners, 10_000)
    assert largest.elements == 700 * 2100


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_finds_the_same() -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(500, 64), torch.randn(1500, 64)
    owners = torch.arange(500).repeat(3)
    here, there = (recall.ranks(images.to(d), texts.to(d), owners.to(d)) for d in ("cpu", "cuda"))
    assert here[0].equal(there[0].cpu()) and here[1].equal(there[1].cpu())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused(value: float) -> None:
    images, texts, owners = torch.ones(3, 2), torch.ones(6, 2), torch.arange(3).repeat(2)
    texts[4, 1] = value
    with pytest.raises(RunError, match="embeddings of 1 of 6 texts are not finite"):
        recall.ranks(images, texts, owners)
    images[0] = value
    with pytest.raises(RunError, match="embeddings of 1 of 3 images are not finite"):
        recall.ranks(images, texts, owners)


def test_scores_beyond_float32_are_refused() -> None:
    """There all are infinite, and so all equal."""
    large = torch.full((2, 2), 1e20)
    with pytest.raises(RunError, match="beyond the range of float32"):
        recall.ranks(large, large, torch.arange(2))


@pytest.mark.parametrize(
    ("images", "texts", "owners", "message"),
    [
        (3, 4, [0, 1, 0, 1], "1 of 3 images have no caption"),
        (2, 3, [0, 1, 2], r"owners must be numbers of images, 0\.\.1"),
        (2, 3, [0, 1, -1], r"owners must be numbers of images, 0\.\.1"),
        (2, 3, [0.0, 1.0, 1.0], r"owners must be numbers of images, 0\.\.1"),
        (2, 3, [0, 1], r"owners \(2,\): one for each text is needed"),
        (0, 0, [], "one for each text is needed"),
    ],
)
def test_what_belongs_to_nothing_is_refused(
    images: int, texts: int, owners: list[int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        recall.ranks(torch.ones(images, 2), torch.ones(texts, 2), torch.tensor(owners))


def test_shapes_are_checked() -> None:
    owners = torch.arange(2)
    for other in (torch.ones(2, 3), torch.ones(2)):
        with pytest.raises(UsageError, match=r"must be \(images, D\) and \(texts, D\)"):
            recall.ranks(torch.ones(2, 2), other, owners)
    with pytest.raises(UsageError, match="chunk = 0 must be at least 1"):
        recall.ranks(torch.ones(2, 2), torch.ones(2, 2), owners, 0)
