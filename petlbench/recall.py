"""Recall of image-text retrieval, in both directions.

Text retrieval (i2t): an image finds one of its captions among the first K of all captions. Image
retrieval (t2i): a caption finds its image among the first K of all images. K is 1, 5 and 10; the
mean of the six numbers is what papers call mR.

A rank is how many strangers score at least as high as the best of a query's own: a tie counts
against the query, so that equal embeddings earn nothing. (Released code sorts, and gives a tie to
whichever comes first.) A candidate set of K or fewer is found by any query at K, as everywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from petlbench.errors import RunError, UsageError

AT = (1, 5, 10)
METRICS = ("mean_recall", *(f"{way}_r{k}" for way in ("i2t", "t2i") for k in AT))


def recall(images: Tensor, texts: Tensor, owners: Tensor, chunk: int = 2048) -> dict[str, float]:
    """The METRICS of these embeddings, each in [0, 1]; arguments are those of `ranks`."""
    return of_ranks(*ranks(images, texts, owners, chunk))


def of_ranks(i2t: Tensor, t2i: Tensor) -> dict[str, float]:
    """METRICS of what `ranks` gives; the mean of recalls comes first."""
    found = {
        f"{way}_r{k}": int((rank < k).sum()) / len(rank)
        for way, rank in (("i2t", i2t), ("t2i", t2i))
        for k in AT
    }
    return {"mean_recall": sum(found.values()) / len(found), **found}


@torch.no_grad()
def ranks(
    images: Tensor, texts: Tensor, owners: Tensor, chunk: int = 2048
) -> tuple[Tensor, Tensor]:
    """Ranks, 0 for the first: of each image's best caption (I,), of each caption's image (T,).

    images (I, D) and texts (T, D), of any length: a score is their inner product. owners (T,) is
    the image of each caption. Products are summed in float64 and rounded to float32, in which
    they are compared: so a tie is a tie on every device, in every chunk, and without TF32. The
    matrix of scores is never whole: at most `chunk` x `chunk` of it (50 MB at 2048, with what
    comparing takes) and `chunk` rows of each side in float64.

    Raises UsageError where an image has no caption or a caption no image, RunError where an
    embedding is not finite or a caption's score is beyond float32.
    """
    _require(images, texts, owners, chunk)
    if images.device.type == "mps":  # which has no float64
        images, texts = images.cpu(), texts.cpu()
    owners = owners.to(images.device, torch.int64)
    own = torch.cat(
        [
            (images[owners[part]].double() * texts[part].double()).sum(1).float()
            for part in _parts(len(texts), chunk)
        ]
    )
    if not own.isfinite().all():  # all would be infinite, and so all equal
        raise RunError("inner products of the embeddings are beyond the range of float32.")
    best = own.new_full((len(images),), -torch.inf).scatter_reduce_(0, owners, own, "amax")
    i2t, t2i = torch.zeros_like(best, dtype=torch.int64), torch.zeros_like(owners)
    for rows in _parts(len(images), chunk):
        numbers = torch.arange(rows.start, rows.stop, device=images.device)
        queries = images[rows].double()
        for columns in _parts(len(texts), chunk):
            scores = (queries @ texts[columns].double().T).float()  # (rows, columns)
            strange = numbers[:, None] != owners[columns]
            i2t[rows] += (strange & (scores >= best[rows, None])).sum(1)
            t2i[columns] += (strange & (scores >= own[columns])).sum(0)
    return i2t, t2i


def _parts(count: int, chunk: int) -> list[slice]:
    return [slice(start, min(start + chunk, count)) for start in range(0, count, chunk)]


def _require(images: Tensor, texts: Tensor, owners: Tensor, chunk: int) -> None:
    shapes = f"images {tuple(images.shape)}, texts {tuple(texts.shape)}"
    if images.ndim != 2 or texts.ndim != 2 or images.shape[1] != texts.shape[1]:
        raise UsageError(f"embeddings must be (images, D) and (texts, D); these are {shapes}.")
    if not len(images) or owners.shape != texts.shape[:1]:
        raise UsageError(
            f"{shapes}, but owners {tuple(owners.shape)}: one for each text is needed."
        )
    if owners.is_floating_point() or owners.min() < 0 or owners.max() >= len(images):
        raise UsageError(f"owners must be numbers of images, 0..{len(images) - 1}.")
    without = int((torch.bincount(owners, minlength=len(images)) == 0).sum())
    if without:
        raise UsageError(f"{without} of {len(images)} images have no caption.")
    if chunk < 1:
        raise UsageError(f"chunk = {chunk} must be at least 1.")
    for kind, vectors in (("images", images), ("texts", texts)):
        broken = sum(
            int((~vectors[part].isfinite()).any(1).sum()) for part in _parts(len(vectors), chunk)
        )
        if broken:
            raise RunError(f"embeddings of {broken} of {len(vectors)} {kind} are not finite.")
