"""What the harness costs: one epoch and one test pass through petlbench against a bare loop.

    python benchmarks/overhead.py [--repeats 5] [--threads 2]

Both sides train the same `convpass` model on the same images for one epoch and predict the same
test images, in turns, in one process. The bare loop reads normalised fp32 tensors already in
memory; petlbench goes through its recorded path: memory-mapped uint8 cache, normalisation,
schedule, finiteness checks. Printed: seconds per round and the median of the paired ratios.
The second table is `linear` against `convpass` through petlbench for the same epochs.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time

import torch

from petlbench import plan, weights
from petlbench.data import cache
from petlbench.experiment import Machine, measure
from petlbench.spec import RunSpec
from petlbench.task import load_suite

TASK = "fashion_mnist"


def specs(methods: list[str], epochs: int) -> list[RunSpec]:
    with tempfile.TemporaryDirectory() as folder:
        settings = {"protocol.epochs": epochs, "protocol.warmup_epochs": 0}
        request = plan.Request(
            methods=methods, tasks=[TASK], settings=settings, results=folder, device="cpu"
        )
        return plan.make(request).specs


def through_petlbench(spec: RunSpec, threads: int) -> float:
    """Seconds of training and testing, as a record states them."""
    measured, _ = measure(spec, Machine("cpu", threads, keep="none"), lambda message: None)
    return float(measured["train_seconds"] + measured["test_seconds"])


def bare_loop(spec: RunSpec, threads: int) -> float:
    """Seconds of the same work with nothing around it."""
    torch.set_num_threads(threads)
    rules, suite = spec.rules, load_suite(spec.suite)
    (task,) = suite.select([spec.task])
    tensors = []
    for split in (rules["train_split"], rules["test_split"]):
        loaded = cache.load(suite.open_split(task, split, None), rules["image_size"], "bicubic")
        pixels = torch.from_numpy(loaded.pixels).float() / 255
        mean, std = (torch.tensor(rules[name]).view(3, 1, 1) for name in ("mean", "std"))
        tensors.append(((pixels - mean) / std, torch.from_numpy(loaded.labels)))
    (images, labels), (test_images, _) = tensors
    model = weights.build(spec.backbone, rules["image_size"], rules["drop_path"])
    torch.manual_seed(spec.seed)
    model.prepare(spec.classes)
    spec.method.build().attach(model)
    model.use_fused_attention(False)

    begin = time.perf_counter()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, weight_decay=rules["weight_decay"])
    model.train()
    order, batch = torch.randperm(len(labels)), rules["batch_size"]
    for start in range(0, len(labels) - batch + 1, batch):
        chosen = order[start : start + batch]
        loss = torch.nn.functional.cross_entropy(model(images[chosen]), labels[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.inference_mode():
        for start in range(0, len(test_images), 128):
            model(test_images[start : start + 128]).argmax(1)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()

    (convpass,) = specs(["convpass"], epochs=1)
    through_petlbench(convpass, args.threads)  # warm the cache and the allocator
    bare_loop(convpass, args.threads)
    pairs = []
    for i in range(args.repeats):  # who goes first alternates
        if i % 2:
            bare = bare_loop(convpass, args.threads)
            ours = through_petlbench(convpass, args.threads)
        else:
            ours = through_petlbench(convpass, args.threads)
            bare = bare_loop(convpass, args.threads)
        pairs.append((ours, bare))
        print(f"petlbench {ours:.2f} s   bare loop {bare:.2f} s   ratio {ours / bare:.3f}")
    ratio = statistics.median(ours / bare for ours, bare in pairs)
    print(f"median ratio petlbench / bare loop: {ratio:.3f}")

    linear, convpass = specs(["linear", "convpass"], epochs=3)
    ratios = []
    for _ in range(max(1, args.repeats // 2)):
        first = through_petlbench(linear, args.threads)
        second = through_petlbench(convpass, args.threads)
        ratios.append(second / first)
        print(f"linear {first:.2f} s   convpass {second:.2f} s   ratio {second / first:.2f}")
    print(f"median ratio convpass / linear, same epochs: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
