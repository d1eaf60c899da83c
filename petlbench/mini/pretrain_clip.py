"""Pre-train the embedded two-tower model on rendered pictures with plain captions, on a CPU.

    python -m petlbench.mini.pretrain_clip --output clip_mini.safetensors

The pictures are not those of suite `mini-retrieval` (`captioned.py`): one or two upright shapes on
a smooth background, never a caption that says how they lie to each other, other shapes and
colours in part. The recipe is fixed below and in MODEL_CARD.md; the run is seeded, so the same
machine gives the same weights. A checkpoint after each epoch makes it resumable.

`--merges FILE` writes the byte-pair merges of the tokenizer instead, which training needs.
"""

from __future__ import annotations

import argparse
import collections
import gzip
import itertools
import math
import os
import re
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from petlbench import weights
from petlbench.mini import captioned, scenes
from petlbench.mini.scenes import Draws, Point

IMAGES, HELD_OUT = 20_000, 500
EPOCHS, WARMUP_STEPS, BATCH = 7, 100, 100
LR, WEIGHT_DECAY, SEED = 1e-3, 0.05, 0
MAX_SCALE = math.log(100)  # of the logits, as in the CLIP paper

COLOURS = {
    "red": (225, 50, 50),
    "green": (50, 175, 60),
    "blue": (50, 80, 225),
    "yellow": (235, 220, 50),
    "orange": (240, 140, 40),
    "white": (240, 240, 240),
}
SHAPES = {"circle": 0, "square": 0, "triangle": 90, "bar": 0}  # and how it stands, in degrees
RADII = {"small": (76, 100), "large": (140, 176)}
ROWS, COLUMNS = ("top", "middle", "bottom"), ("left", "middle", "right")


# -- pictures ------------------------------------------------------------------------------------


def picture(index: int) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Image (48, 48, 3) uint8 of the pre-training domain, and captions that are true of it."""
    draws = Draws(10_000_000 + index)
    level, slope = draws.one(40, 110), draws.array(-12, 12, (2, 3))
    from_middle = np.arange(scenes.IMAGE) - scenes.IMAGE // 2
    image = level + draws.array(-15, 15, (3,)) + np.zeros((scenes.IMAGE, scenes.IMAGE, 3), np.int64)
    image += from_middle[:, None, None] * slope[0] // 24 + from_middle[:, None] * slope[1] // 24
    told = []
    for centre, radius, size in _places(draws):
        colour, shape = _any(draws, COLOURS), _any(draws, SHAPES)
        cover = scenes._coverage(captioned.outline(shape, centre, radius, SHAPES[shape]))
        paint = np.array(COLOURS[colour], dtype=np.int64) + draws.array(-15, 15, (3,))
        image = captioned.paint(image, cover, paint)
        told.append((size, colour, shape, _where(centre)))
    image += draws.array(-4, 4, image.shape)
    return image.clip(0, 255).astype(np.uint8), _captions(told)


def _captions(told: list[tuple[str, str, str, str]]) -> tuple[str, ...]:
    plain = [f"{article(colour)} {colour} {shape}" for _, colour, shape, _ in told]
    sized = [f"a {size} {colour} {shape}" for size, colour, shape, _ in told]
    placed = [f"{name} {where}" for name, (*_, where) in zip(plain, told, strict=True)]
    return tuple(" and ".join(names) for names in (plain, sized, placed))


def article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _places(draws: Draws) -> list[tuple[Point, int, str]]:
    """Centre, radius and size of one or two objects that do not touch."""
    count = draws.one(1, 2)
    while True:
        sizes = [_any(draws, RADII) for _ in range(count)]
        radii = [draws.one(*RADII[size]) for size in sizes]
        centres = [scenes._inside(draws, radius) for radius in radii]
        (ax, ay), (bx, by) = centres[0], centres[-1]
        apart = (ax - bx) ** 2 + (ay - by) ** 2 >= (sum(radii) + scenes.GAP) ** 2
        if count == 1 or apart:
            return list(zip(centres, radii, sizes, strict=True))


def _where(centre: Point) -> str:
    third = scenes.IMAGE * scenes.PIXEL // 3
    column, row = COLUMNS[centre[0] // third], ROWS[centre[1] // third]
    if row == "middle":
        return "in the middle" if column == "middle" else f"on the {column}"
    return f"at the {row}" if column == "middle" else f"at the {row} {column}"


def _any(draws: Draws, choices: Iterable[str]) -> str:
    known = list(choices)
    return known[draws.one(0, len(known) - 1)]


# -- words ---------------------------------------------------------------------------------------


def words() -> list[str]:
    """Every word of pre-training captions and of the training captions of the suite, in order."""
    texts = [text for index in range(2_000) for text in picture_captions(index)]
    for task, index in itertools.product(captioned.TASKS, range(captioned.SIZES["train"])):
        texts += captioned.captions(task, "train", index)
    return sorted({word for text in texts for word in re.findall("[a-z]+", text)})


def picture_captions(index: int) -> tuple[str, ...]:
    return picture(index)[1]


def merges(known: Sequence[str]) -> str:
    """Byte-pair merges (arXiv:1508.07909) that make each word one token, in open_clip's format."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in known]
    lines = ["#version: petlbench"]  # the first line is skipped by who reads it
    while pairs := collections.Counter(
        pair for word in spelled for pair in itertools.pairwise(word)
    ):
        left, right = min(pairs, key=lambda pair: (-pairs[pair], pair))
        lines.append(f"{left} {right}")
        for word in spelled:
            for place in range(len(word) - 1, 0, -1):
                if word[place - 1 : place + 1] == [left, right]:
                    word[place - 1 : place + 1] = [left + right]
    return "\n".join(lines)


# -- training ------------------------------------------------------------------------------------


def normalise(images: NDArray[np.uint8]) -> Tensor:
    """(N, 48, 48, 3) -> (N, 3, 48, 48) in [-1, 1]."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def contrastive(image: Tensor, text: Tensor, scale: Tensor, tokens: Tensor) -> Tensor:
    """CLIP's symmetric loss; equal captions in a batch share what is due to each."""
    logits = scale * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    same = (tokens[:, None] == tokens[None]).all(-1).float()
    share = same / same.sum(1, keepdim=True)
    return (F.cross_entropy(logits, share) + F.cross_entropy(logits.T, share)) / 2


@torch.inference_mode()
def recalls(
    model: Any, images: NDArray[np.uint8], captions: Sequence[Sequence[str]]
) -> list[float]:
    """R@1, 5, 10 of captions for an image, then of the image for a caption, in percent.

    An image is a hit if any of its captions is among the first K.
    """
    model.eval()
    owners = torch.tensor([i for i, texts in enumerate(captions) for _ in texts])
    tokens = model.tokenizer([text for texts in captions for text in texts])
    image = torch.cat([model.encode_image(part) for part in torch.split(normalise(images), 250)])
    text = torch.cat([model.encode_text(part) for part in torch.split(tokens, 250)])
    likeness = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    found = []
    for k in (1, 5, 10):
        near = owners[likeness.topk(k, dim=1).indices]
        found.append(float((near == torch.arange(len(images))[:, None]).any(1).float().mean()))
    for k in (1, 5, 10):
        near = likeness.topk(k, dim=0).indices
        found.append(float((near == owners).any(0).float().mean()))
    return [100 * share for share in found]


def zero_shot(model: Any, task: str) -> list[float]:
    """`recalls` on the test split of a task of the suite, which no training has seen."""
    items = [(task, "test", index) for index in range(captioned.SIZES["test"])]
    images = np.stack([captioned.render(*item) for item in items])
    return recalls(model, images, [captioned.captions(*item) for item in items])


def learning_rate(step: int, total: int) -> float:
    if step < WARMUP_STEPS:
        return LR * (step + 1) / WARMUP_STEPS
    return 0.5 * LR * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (total - WARMUP_STEPS)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("clip_mini.safetensors"))
    parser.add_argument("--merges", type=Path, metavar="FILE")
    args = parser.parse_args()
    if args.merges:
        args.merges.write_bytes(gzip.compress(merges(words()).encode(), mtime=0))
        return

    drawn = [picture(index) for index in range(IMAGES + HELD_OUT)]
    images, captions = np.stack([image for image, _ in drawn]), [texts for _, texts in drawn]
    print(f"{IMAGES} training and {HELD_OUT} held-out pictures", flush=True)

    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = weights.create("clip:mini", scenes.IMAGE)
    tokens = torch.stack([model.tokenizer(list(texts)) for texts in captions[:IMAGES]])
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0}],
        betas=(0.9, 0.98),
    )

    first_epoch, checkpoint = 0, args.output.with_suffix(".checkpoint")
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        first_epoch = state["epoch"]
        print(f"resuming after epoch {first_epoch}", flush=True)

    steps = IMAGES // BATCH
    for epoch in range(first_epoch, EPOCHS):
        model.train()
        started, total_loss = time.monotonic(), 0.0
        order = torch.randperm(IMAGES, generator=generator)
        which = torch.randint(0, tokens.shape[1], (IMAGES,), generator=generator)
        for step, chosen in enumerate(torch.split(order, BATCH)):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * steps + step, EPOCHS * steps)
            said = tokens[chosen, which[chosen]]
            image = model.encode_image(normalise(images[chosen.numpy()]))
            loss = contrastive(image, model.encode_text(said), model.logit_scale.exp(), said)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            model.logit_scale.data.clamp_(max=MAX_SCALE)
            total_loss += loss.item()
        temporary = checkpoint.with_suffix(".tmp")
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state | {"generator": generator.get_state(), "epoch": epoch + 1}, temporary)
        os.replace(temporary, checkpoint)
        seconds = time.monotonic() - started
        loss_said = f"loss {total_loss / steps:.3f}, scale {model.logit_scale.exp().item():.1f}"
        print(f"epoch {epoch + 1}/{EPOCHS} {loss_said} ({seconds:.0f} s)", flush=True)

    # The stored precision is the measured one: the recalls below are those of the fp16 weights.
    halves = {name: p.detach().half().contiguous() for name, p in model.named_parameters()}
    model.load_state_dict({name: half.float() for name, half in halves.items()}, strict=False)
    shown = {"held-out pictures": recalls(model, images[IMAGES:], captions[IMAGES:])}
    shown |= {f"{task}, zero-shot": zero_shot(model, task) for task in captioned.TASKS}
    for name, found in shown.items():
        listed = " ".join(f"{value:.1f}" for value in found)
        print(f"{name}: R@1 R@5 R@10 of texts, then of images: {listed}; mean {np.mean(found):.2f}")
    save_file(halves, args.output, metadata={"trained_on": "rendered pictures", "seed": str(SEED)})
    print(f"wrote {args.output} ({args.output.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
