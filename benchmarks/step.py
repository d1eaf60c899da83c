"""Images per second of one method, one run at a time: plain, with steps replayed, and compiled.

    python benchmarks/step.py [--method convpass] [--backbone vit_base_patch16_224.orig_in21k]
                              [--device cuda] [--precision bf16] [--epoch-steps 15]

Training as a run of VTAB-1K does it (random images and weights, epochs of 15 batches of 64), and a
test pass over 4,096 images. "Share" is of a large matrix product of random numbers in the same
precision. Replayed alone is no option of petlbench: `--compile` gives both.
"""

from __future__ import annotations

import argparse
import time
from functools import partial

import torch

from petlbench import experiment, plan, speed
from petlbench.experiment import Machine
from petlbench.problems import classification
from petlbench.request import Request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", default="convpass")
    parser.add_argument("--suite", default="vtab-1k")
    parser.add_argument("--task", default="cifar")
    parser.add_argument("--backbone", default="vit_base_patch16_224.orig_in21k")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--epoch-steps", type=int, default=15)
    parser.add_argument("--test-images", type=int, default=4096)
    args = parser.parse_args()

    request = Request(
        suite=args.suite,
        tasks=[args.task],
        methods=[args.method],
        backbone=args.backbone,
        device=args.device,
        jobs=1,
        settings={"protocol.precision": args.precision, "protocol.warmup_epochs": 0},
    )
    spec = plan.make(request, sketch=True).specs[0]
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    peak = speed.matrix_rate(args.device, dtype, 2048 if args.device == "cpu" else 8192)
    print(", ".join([args.method, args.backbone, args.device, args.precision]))
    print(f"a large matrix product: {peak / 1e12:.3g} TFLOP/s")
    training_flops, testing_flops = speed.flops(spec)
    images = args.epoch_steps * spec.rules["batch_size"]
    data, test = (classification.imaginary(spec, count) for count in (images, args.test_images))
    for name, replay, compiled in [
        ("plain", False, False),
        ("replayed", True, False),
        ("compiled", True, True),
    ]:
        if name == "replayed" and args.device != "cuda":
            continue  # it would be the plain one again
        machine = Machine(args.device, torch.get_num_threads(), attention="fused", compile=compiled)
        model = experiment.prepare(spec, machine)
        model.replay = replay and args.device == "cuda"

        def fit(epochs: int, model: torch.nn.Module = model) -> float:
            rules = spec.rules | {"epochs": epochs, "learning_rate": 1e-9, "min_learning_rate": 0.0}
            begin = time.perf_counter()
            classification.fit(model, data, rules, 0)
            return time.perf_counter() - begin

        first = fit(1)
        one, four = (min(fit(epochs) for _ in range(2)) for epochs in (1, 4))
        training = 3 * images / (four - one)
        call = partial(classification.outputs, model, test, spec.rules)
        testing = args.test_images / speed.seconds_of(call, args.device, 0.1)
        shares = training * training_flops / peak, testing * testing_flops / peak
        print(
            f"{name:<9} training {training:>6,.0f} images/s, share {shares[0]:.0%}"
            f"   test {testing:>6,.0f} images/s, share {shares[1]:.0%}"
            f"   first epoch {first:.1f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
