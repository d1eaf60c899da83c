"""The linear probe: features once, against training the same head through the backbone.

    python benchmarks/linear_probe.py --data-root DIR --checkpoint FILE [--epochs 100]

Measured in one process, on CIFAR-100 with 1,000 training images (DINOv2 ViT-S/14, 98 px): training
a head for `--epochs` epochs on features (petlbench's own path, the features included) and for ten
times as many, to convergence; and two epochs of the same head through the backbone, in the same
precision, from which the time of all epochs follows: every epoch costs the same.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch
from reference_loop import specify

from petlbench import experiment, train
from petlbench.data import cache
from petlbench.data.normalise import Normalise
from petlbench.data.vault import Data
from petlbench.evaluate import predict
from petlbench.experiment import Machine
from petlbench.problems import classification
from petlbench.task import load_suite


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--precision", default="auto")
    args = parser.parse_args()
    files = args.data_root, args.checkpoint
    (spec,) = specify(*files, args.epochs, "linear", args.precision).specs
    rules, suite, device = spec.rules, load_suite("vtab-1k"), torch.device("cpu")
    (task,) = suite.select(["cifar"])
    splits = (rules["train_split"], rules["test_split"])
    opened = [suite.open_split(task, name, args.data_root, 0) for name in splits]
    training, test = (cache.load(split, cache.Geometry.of(rules)) for split in opened)
    data = Data(opened[0], training)
    normalise = Normalise(rules["mean"], rules["std"], device)
    machine = Machine("cpu", torch.get_num_threads())
    bf16 = rules["precision"] == "bf16"
    seconds = {}
    for epochs in (args.epochs, 10 * args.epochs):
        changed = replace(spec, rules={**rules, "epochs": epochs})
        model = experiment.prepare(changed, machine)
        begin = time.perf_counter()
        fitted = classification.fit(model, data, changed.rules, spec.seed)
        seconds[epochs] = time.perf_counter() - begin
        predictions = predict(model, torch.from_numpy(test.pixels), normalise, bf16)
        accuracy = float((predictions.numpy() == test.labels).mean())
        print(
            f"on features, {epochs} epochs: {seconds[epochs]:.2f} s, test {accuracy:.4f}, loss of "
            f"the last epochs {fitted.loss[-2]:.4f}, {fitted.loss[-1]:.4f}"
        )
    model = experiment.prepare(spec, machine)
    begin = time.perf_counter()
    few = {**rules, "epochs": 2, "warmup_epochs": 0}
    pixels, labels = torch.from_numpy(training.pixels), torch.from_numpy(training.labels)
    gradient = classification.CrossEntropy(
        model,
        model,
        lambda epoch, order: (normalise(pixels[chosen]) for chosen in order),
        labels,
        few,
        spec.seed,
    )
    train.train(model, gradient, len(labels), few, spec.seed)
    whole = (time.perf_counter() - begin) / 2 * args.epochs
    print(f"through the backbone, {args.epochs} epochs: {whole:.0f} s ({rules['precision']})")
    for epochs, spent in seconds.items():
        print(f"ratio, {epochs} epochs on features: {whole / spent:.1f}")


if __name__ == "__main__":
    main()
