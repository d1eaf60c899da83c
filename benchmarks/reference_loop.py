"""A training loop the way released PETL code works, to measure petlbench against.

Every epoch decodes, resizes and normalises every image again in DataLoader workers; everything is
computed in fp32, with the attention kernel that timm sets; the whole test set is evaluated every
10 epochs, and the best of these test accuracies is kept. Model, method, optimiser, schedule and
number of epochs are those of petlbench, so that only the way of working differs.

    python benchmarks/reference_loop.py --data-root DIR --checkpoint FILE [--epochs 100]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from petlbench import method, plan, weights
from petlbench.request import Request
from petlbench.spec import RunSpec
from petlbench.train import learning_rate

EVALUATE_EVERY = 10  # epochs


def specify(
    data_root: Path,
    checkpoint: Path,
    epochs: int,
    name: str = "convpass",
    precision: str = "fp32",
    backbone: str = "vit_small_patch14_dinov2",
    image_size: int = 98,
    results: Path | str = "results/unused",
) -> plan.Plan:
    """The plan of one run on CIFAR-100 with 1,000 training images."""
    return plan.make(
        Request(
            suite="vtab-1k",
            tasks=["cifar"],
            methods=[name],
            seeds=1,
            data_root=str(data_root),
            backbone=backbone,
            checkpoint=str(checkpoint),
            device="cpu",
            results=str(results),
            settings={
                "protocol.image_size": image_size,
                "protocol.epochs": epochs,
                "protocol.warmup_epochs": epochs // 10,
                "protocol.precision": precision,
            },
        )
    )


class Files(Dataset):  # type: ignore[type-arg]
    """`relative/path label` per line; decoded each time an image is asked for."""

    def __init__(self, folder: Path, split: str, transform: transforms.Compose) -> None:
        lines = (folder / f"{split}.txt").read_text().splitlines()
        pairs = [line.rpartition(" ") for line in lines if line.strip()]
        self.items = [(folder / path, int(label)) for path, _, label in pairs]
        self.transform = transform

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.items[index]
        with Image.open(path) as image:
            return self.transform(image.convert("RGB")), label


@dataclass(frozen=True)
class Outcome:
    seconds: float
    best: float  # best test accuracy over the evaluations: the number released code reports
    last: float  # test accuracy after the last epoch


def run(spec: RunSpec, folder: Path, workers: int) -> Outcome:
    """Seconds from images on disk to the last test accuracy; the checkpoint's path included."""
    begin = time.perf_counter()
    rules = spec.rules
    transform = transforms.Compose(
        [
            transforms.Resize(
                (rules["image_size"], rules["image_size"]),
                interpolation=transforms.InterpolationMode.BICUBIC,
            ),
            transforms.ToTensor(),
            transforms.Normalize(rules["mean"], rules["std"]),
        ]
    )
    training = DataLoader(
        Files(folder, rules["train_split"], transform),
        batch_size=rules["batch_size"],
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )
    testing = DataLoader(
        Files(folder, rules["test_split"], transform), batch_size=256, num_workers=workers
    )
    model = weights.build(spec.backbone, rules["image_size"], rules["drop_path"])
    torch.manual_seed(spec.seed)
    model.prepare(spec.classes)
    method.load(spec.method.reference)(**spec.method.config).attach(model)
    trainable = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-3, weight_decay=rules["weight_decay"])
    best = last = 0.0
    for epoch in range(rules["epochs"]):
        model.train()
        for step, (images, labels) in enumerate(training):
            for group in optimizer.param_groups:
                rate = learning_rate(epoch * len(training) + step, len(training), rules)
                group["lr"] = rate
            loss = torch.nn.functional.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if (epoch + 1) % EVALUATE_EVERY == 0 or epoch + 1 == rules["epochs"]:
            model.eval()
            correct = 0
            with torch.no_grad():
                for images, labels in testing:
                    correct += int((model(images).argmax(1) == labels).sum())
            last = correct / len(testing.dataset)  # type: ignore[arg-type]
            best = max(best, last)
            print(f"reference: epoch {epoch + 1}, test {last:.4f}", flush=True)
    return Outcome(time.perf_counter() - begin, best, last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2, help="of each DataLoader")
    args = parser.parse_args()
    (spec,) = specify(args.data_root, args.checkpoint, args.epochs).specs
    outcome = run(spec, args.data_root / "cifar", args.workers)
    print(f"{outcome.seconds:.1f} s; best {outcome.best:.4f}, last {outcome.last:.4f}")


if __name__ == "__main__":
    main()
