"""Peak memory of one training step per method, against full fine-tuning.

    python benchmarks/memory.py [--backbone vit_base_patch16_224.orig_in21k] [--batch 64]
                                [--precision bf16] [--methods A,B] [--recompute] [--device cpu]

Each method in a process of its own: random weights, one step on random images. On a CPU the peak is
that of the process's resident memory above what it held before the model was built; on a GPU that
of allocated memory. "Kept" are the bytes that autograd keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

import torch

METHODS = "full,bitfit,convpass,adapter,adaptformer,lora,vpt,vpt_shallow,linear"


def step(args: argparse.Namespace) -> None:
    """Print the peak of one step of one method as JSON."""
    from petlbench import experiment, plan
    from petlbench.problems import classification
    from petlbench.request import Request

    settings = {"protocol.precision": args.precision, "protocol.batch_size": args.batch}
    made = plan.make(
        Request(
            suite="vtab-1k",
            tasks=["cifar"],
            methods=[args.methods],
            backbone=args.backbone,
            device=args.device,
            recompute=args.recompute,
            jobs=1,
            attention=args.attention,
            settings=settings,
        ),
        sketch=True,
    )
    spec, device = made.specs[0], torch.device(args.device)
    rules = spec.rules | {"epochs": 1, "warmup_epochs": 0}
    data = classification.imaginary(spec, args.batch)
    experiment.reset_peak(device)
    before = experiment.peak_bytes(device)
    model = experiment.prepare(spec, made.machine)
    kept: dict[int, int] = {}
    parameters = {p.data_ptr() for p in model.parameters()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        classification.fit(model, data, rules, seed=0)
    peak = experiment.peak_bytes(device) - before
    print(json.dumps({"peak": peak, "kept": sum(kept.values())}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--backbone", default="vit_base_patch16_224.orig_in21k")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--precision", default="bf16")
    parser.add_argument("--attention", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        step(args)
        return
    print(f"{args.backbone}, batch {args.batch}, {args.precision}, {args.device}")
    print(f"{'method':<14}{'peak, MiB':>12}{'of full':>9}{'kept for backward, MiB':>24}")
    full = None
    for method in args.methods.split(","):
        command = [sys.executable, __file__, *sys.argv[1:], "--methods", method, "--one"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        found = json.loads(done.stdout.splitlines()[-1])
        full = full or found["peak"]
        share, kept = found["peak"] / full, found["kept"] / 2**20
        print(f"{method:<14}{found['peak'] / 2**20:>12,.0f}{share:>9.0%}{kept:>24,.0f}", flush=True)


if __name__ == "__main__":
    main()
