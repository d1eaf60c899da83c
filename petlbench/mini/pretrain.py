"""Pre-train the embedded backbone on CIFAR-100, from scratch, on a CPU.

    python -m petlbench.mini.pretrain CIFAR_DIR --output vit_mini.safetensors

`CIFAR_DIR` holds `train/<class>/*.png` and `test/<class>/*.png` (32x32 pixels; for example a
checkout of github.com/cyizhuo/CIFAR-100-dataset). The recipe is fixed below and in
MODEL_CARD.md; the run is seeded, so the same machine gives the same weights, and another machine
the same accuracy within a point. A checkpoint after each epoch makes it resumable.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from petlbench.mini import ARCHITECTURE

IMAGE_SIZE = 48  # pixels
EPOCHS, WARMUP_EPOCHS, BATCH = 24, 1, 128
LR, WEIGHT_DECAY, LABEL_SMOOTHING, SEED = 1e-3, 0.05, 0.1, 0
SHIFT = 6  # random translation, pixels at 48x48


def read_split(folder: Path, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 3, size, size) uint8 and labels (N,) int64 of a class-per-folder split."""
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    images, labels = [], []
    for label, name in enumerate(classes):
        for file in sorted((folder / name).glob("*.png")):
            with Image.open(file) as image:
                resized = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC)
            images.append(np.asarray(resized).transpose(2, 0, 1))
            labels.append(label)
    return torch.from_numpy(np.stack(images)), torch.tensor(labels)


def normalise(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1.0


def augment(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Per-image random shift (reflected border) and horizontal flip of a float batch."""
    padded = nn.functional.pad(images, (SHIFT,) * 4, mode="reflect")
    size = images.shape[-1]
    offsets = torch.randint(0, 2 * SHIFT + 1, (len(images), 2), generator=generator).tolist()
    flips = (torch.rand(len(images), generator=generator) < 0.5).tolist()
    rows = []
    for image, (top, left), flip in zip(padded, offsets, flips, strict=True):
        crop = image[:, top : top + size, left : left + size]
        rows.append(crop.flip(-1) if flip else crop)
    return torch.stack(rows)


@torch.inference_mode()
def accuracy(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    model.eval()
    correct = 0
    for start in range(0, len(images), 500):
        logits = model(normalise(images[start : start + 500]))
        correct += int((logits.argmax(1) == labels[start : start + 500]).sum())
    return correct / len(images)


def learning_rate(step: int, steps_per_epoch: int) -> float:
    warmup, total = WARMUP_EPOCHS * steps_per_epoch, EPOCHS * steps_per_epoch
    if step < warmup:
        return LR * (step + 1) / warmup
    return 0.5 * LR * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cifar", type=Path)
    parser.add_argument("--output", type=Path, default=Path("vit_mini.safetensors"))
    args = parser.parse_args()

    train_images, train_labels = read_split(args.cifar / "train", IMAGE_SIZE)
    test_images, test_labels = read_split(args.cifar / "test", IMAGE_SIZE)
    print(f"{len(train_images)} training and {len(test_images)} test images", flush=True)

    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    architecture: dict[str, Any] = dict(ARCHITECTURE)
    model = VisionTransformer(img_size=IMAGE_SIZE, num_classes=100, **architecture)
    for block in model.blocks:
        block.attn.fused_attn = False  # type: ignore[union-attr]  # the fused kernel's backward is slower on CPUs
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0}]
    )
    loss_function = nn.CrossEntropyLoss(label_smoothing=LABEL_SMOOTHING)

    first_epoch, checkpoint = 0, args.output.with_suffix(".checkpoint")
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        generator.set_state(state["generator"])
        first_epoch = state["epoch"]
        print(f"resuming after epoch {first_epoch}", flush=True)

    steps_per_epoch = len(train_images) // BATCH
    for epoch in range(first_epoch, EPOCHS):
        model.train()
        started, total_loss = time.monotonic(), 0.0
        order = torch.randperm(len(train_images), generator=generator)
        for step in range(steps_per_epoch):
            chosen = order[step * BATCH : (step + 1) * BATCH]
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(epoch * steps_per_epoch + step, steps_per_epoch)
            logits = model(augment(normalise(train_images[chosen]), generator))
            loss = loss_function(logits, train_labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            total_loss += loss.item()
        temporary = checkpoint.with_suffix(".tmp")
        torch.save(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "generator": generator.get_state(),
                "epoch": epoch + 1,
            },
            temporary,
        )
        os.replace(temporary, checkpoint)
        print(
            f"epoch {epoch + 1}/{EPOCHS} loss {total_loss / steps_per_epoch:.3f} "
            f"({time.monotonic() - started:.0f} s)",
            flush=True,
        )

    # The stored precision is the measured one: the accuracy below is that of the fp16 weights.
    state = {name: tensor.half() for name, tensor in model.state_dict().items()}
    model.load_state_dict(state)
    print(f"CIFAR-100 test accuracy {accuracy(model, test_images, test_labels):.4f}")
    backbone = {k: v.contiguous() for k, v in state.items() if not k.startswith("head.")}
    save_file(backbone, args.output, metadata={"trained_on": "CIFAR-100 train", "seed": str(SEED)})
    print(f"wrote {args.output} ({args.output.stat().st_size:,} bytes)")


if __name__ == "__main__":
    main()
