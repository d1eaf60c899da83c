"""What the harness costs: one epoch and one test pass through petlbench against a bare loop.

    python benchmarks/overhead.py [--repeats 9] [--threads 2] [--device cuda] [--precision bf16]
                                  [--backbone vit_base_patch16_224] [--image-size 224]

Both sides train the same `convpass` model on the same images for one epoch and predict the same
test images, in turns, in one process, in the same precision with the same kernels. The bare loop
reads normalised fp32 tensors already in memory; petlbench goes through its recorded path:
memory-mapped uint8 cache, normalisation, schedule, finiteness checks. Printed: seconds per round
and the ratios of the pairs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch

from petlbench import plan
from petlbench.data import cache
from petlbench.evaluate import CPU_BATCH, DEVICE_BATCH
from petlbench.experiment import Machine, measure, prepare
from petlbench.request import Request
from petlbench.spec import RunSpec
from petlbench.task import load_suite

TASK = "fashion_mnist"


def specify(device: str, precision: str, backbone: str, image_size: int) -> RunSpec:
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "protocol.epochs": 1,
            "protocol.warmup_epochs": 0,
            "protocol.precision": precision,
            "protocol.image_size": image_size,
        }
        request = Request(
            methods=["convpass"],
            tasks=[TASK],
            settings=settings,
            results=folder,
            device=device,
            backbone=backbone,
            checkpoint="random",
        )
        return plan.make(request).specs[0]


def through_petlbench(spec: RunSpec, machine: Machine) -> float:
    """Seconds of training and testing, as a record states them."""
    measured, _ = measure(spec, machine, lambda message: None)
    return float(measured["train_seconds"] + measured["test_seconds"])


def bare_loop(spec: RunSpec, machine: Machine) -> float:
    """Seconds of the same work with nothing around it."""
    torch.set_num_threads(machine.threads)
    device, rules, suite = torch.device(machine.device), spec.rules, load_suite(spec.suite)
    (task,) = suite.select([spec.task])
    tensors = []
    for split in (rules["train_split"], rules["test_split"]):
        geometry = cache.Geometry.of(rules)
        loaded = cache.load(suite.open_split(task, split, None, 0), geometry)
        pixels = torch.from_numpy(loaded.pixels).float() / 255
        mean, std = (torch.tensor(rules[name]).view(3, 1, 1) for name in ("mean", "std"))
        tensors.append([((pixels - mean) / std).to(device), torch.from_numpy(loaded.labels)])
    (images, labels), (test_images, _) = tensors
    model, labels = prepare(spec, machine), labels.to(device)
    bf16 = torch.autocast(device.type, torch.bfloat16, enabled=rules["precision"] == "bf16")

    begin = time.perf_counter()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(
        parameters, lr=1e-3, weight_decay=rules["weight_decay"], fused=True
    )
    model.train()
    order, batch = torch.randperm(len(labels)).to(device), rules["batch_size"]
    for start in range(0, len(labels) - batch + 1, batch):
        chosen = order[start : start + batch]
        with bf16:
            logits = model(images[chosen])
        loss = torch.nn.functional.cross_entropy(logits.float(), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    at_once = CPU_BATCH if device.type == "cpu" else DEVICE_BATCH
    with torch.inference_mode(), bf16:
        for start in range(0, len(test_images), at_once):
            found = model(test_images[start : start + at_once]).argmax(1)
    found.cpu()  # waits for the device
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--backbone", default="vit_mini")
    parser.add_argument("--image-size", type=int, default=48)
    args = parser.parse_args()

    spec = specify(args.device, args.precision, args.backbone, args.image_size)
    kernel = "explicit" if args.device == "cpu" else "fused"
    machine = Machine(args.device, args.threads, keep="none", attention=kernel)
    sides = (through_petlbench, bare_loop)
    for side in sides:  # warm the cache and the allocator
        side(spec, machine)
    pairs = []
    for i in range(args.repeats):  # who goes first alternates
        spent = {side: side(spec, machine) for side in (sides if i % 2 else sides[::-1])}
        ours, bare = (spent[side] for side in sides)
        pairs.append((ours, bare))
        print(f"petlbench {ours:.2f} s   bare loop {bare:.2f} s   ratio {ours / bare:.3f}")
    ratios = [ours / bare for ours, bare in pairs]
    print(
        f"ratio petlbench / bare loop: median {statistics.median(ratios):.3f}, "
        f"{min(ratios):.3f} to {max(ratios):.3f}; of the fastest: "
        f"{min(ours for ours, _ in pairs) / min(bare for _, bare in pairs):.3f}"
    )


if __name__ == "__main__":
    main()
