"""Which caption belongs to which image? Two towers, a contrastive loss, recall at 1, 5 and 10.

The loss is that of CLIP (Radford et al., 2021, section 2.3) with several captions per image: in a
batch of pairs (image, caption), all captions of an image are its own, and are no negatives of each
other. With features f of length 1, temperature t and P(i) the captions of pair i's image,

    L = mean over i of [ H(P(i), softmax_j(f_i . g_j / t)) + H(P(i), softmax_j(g_i . f_j / t)) ] / 2

where H is the cross-entropy to the uniform distribution over P(i). Without a second caption in
the batch this is CLIP's loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from petlbench import parallel, recall, weights
from petlbench.data.normalise import Normalise
from petlbench.data.vault import Data, random_images
from petlbench.errors import RunError, UsageError
from petlbench.evaluate import outputs as in_batches
from petlbench.method import Method
from petlbench.problems import Fitted, Outcome
from petlbench.problems._feed import feed, of
from petlbench.spec import RunSpec
from petlbench.train import train

METRICS = recall.METRICS


def require(method: Method, spec: RunSpec, parameters: int) -> None:
    if not weights.reads_text(spec.backbone.name):
        raise UsageError(
            "retrieval compares images with texts, so the backbone needs both towers: "
            "--backbone clip:ViT-B-32.openai."
        )
    for name in ("mixup", "cutmix", "label_smoothing"):
        if spec.rules[name]:
            raise UsageError(f"protocol.{name} is for classes; retrieval has none: set it to 0.")


def prepare(model: Any, spec: RunSpec, method: Method) -> None:
    """Nothing trains beside a method, unless it trains nothing in the towers: then two maps do."""
    maps = method.trains_head and not method.num_trainable(model.shape)
    model.prepare_pairs(maps)


def fit(
    model: Any,
    data: Data,
    rules: dict[str, Any],
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Fitted:
    """Train on pairs of an image and one of its captions; an epoch has every caption once."""
    inputs, start = feed(model, data, rules, seed)
    device = model.scale.device
    owners = torch.from_numpy(captions(data))
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=rules["precision"] == "bf16")
    scale = 1 / rules["temperature"] if rules["temperature"] else model.scale
    tokens = model.tokenize(data.split.texts)
    known = encoded(model, tokens, rules).float() if model.texts_frozen else None

    trainable = [p for p in model.parameters() if p.requires_grad]

    def gradients(epoch: int, batches: Sequence[Tensor]) -> Iterator[Tensor]:
        shares = [parallel.share(batch)[0] for batch in batches]
        of_epoch = inputs(epoch, [owners[chosen] for chosen in shares])
        for batch, chosen, images in zip(batches, shares, of_epoch, strict=True):
            with bf16:
                of_images = model.image_features(images, start)
                if known is None:
                    of_texts = model.text_features(model.cut(tokens[chosen]))
                else:
                    of_texts = known[of(chosen, known)]
            # every pair is compared with all others, whichever rank has them
            of_images = parallel.gather(of_images.float(), len(batch))
            of_texts = parallel.gather(of_texts.float(), len(batch))
            loss = contrastive(of_images, of_texts, owners[batch].to(device), scale)
            loss.backward()  # type: ignore[no-untyped-call]
            yield parallel.combine(loss.detach() / parallel.size(), trainable, 1.0)

    return Fitted(train(model, gradients, len(owners), rules, seed, on_epoch), start)


def contrastive(images: Tensor, texts: Tensor, owners: Tensor, scale: Tensor | float) -> Tensor:
    """The loss of pairs: features (B, D) of length 1, and which image each pair is of (B,)."""
    own = (owners[:, None] == owners).float()
    own = own / own.sum(1, keepdim=True)
    scores = scale * images @ texts.T  # (B, B)
    return (F.cross_entropy(scores, own) + F.cross_entropy(scores.T, own)) / 2


def captions(data: Data) -> np.ndarray[Any, np.dtype[np.int64]]:
    """The image of each caption."""
    if data.split.owners is None:
        raise RunError(f"split {data.split.name} has no captions, which retrieval needs.")
    return data.split.owners


def encoded(model: Any, tokens: Tensor, rules: dict[str, Any]) -> Tensor:
    """Features of all texts, a batch at a time, on the model's device."""
    bf16, model = rules["precision"] == "bf16", model.eval()
    return in_batches(model.text_features, tokens, model.scale.device, bf16)


def outputs(model: Any, data: Data, rules: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Features of all images (I, D) and of all captions (T, D), of length 1, on the CPU."""
    device, bf16, model = model.scale.device, rules["precision"] == "bf16", model.eval()
    normalise = Normalise(rules["mean"], rules["std"], device)
    pixels = torch.from_numpy(data.images.pixels)
    images = in_batches(lambda x: model.image_features(normalise(x)), pixels, device, bf16)
    texts = encoded(model, model.tokenize(data.split.texts), rules)
    return images.float().cpu(), texts.float().cpu()


def score(
    found: tuple[Tensor, Tensor], data: Data, ordinal: bool = False, among_present: bool = False
) -> Outcome:
    owners = torch.from_numpy(captions(data))
    of_images, of_texts = recall.ranks(*found, owners)
    return Outcome(
        total=len(data),
        metrics=recall.of_ranks(of_images, of_texts),
        arrays={
            "text_rank_of_image": of_images.numpy().astype(np.int32),
            "image_rank_of_text": of_texts.numpy().astype(np.int32),
            "image_of_text": owners.numpy().astype(np.int32),
        },
    )


def imaginary(spec: RunSpec, count: int) -> Data:
    """Random images with one caption of ordinary length each."""
    data = random_images(count, spec.rules["image_size"], count)
    texts = tuple(f"an aerial photograph of place {i} by a river" for i in range(count))
    return replace(data, split=replace(data.split, texts=texts, owners=np.arange(count)))
