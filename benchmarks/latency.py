"""What an adapted model costs in use: one image, merged where the method merges.

    python benchmarks/latency.py [--backbone vit_base_patch16_224] [--image-size 224]
                                 [--methods lora,convpass,...] [--device cpu]

Random weights. Each ratio is of two models that took turns, the fastest pass of each.
"""

from __future__ import annotations

import argparse

from petlbench import plan, speed
from petlbench.method import builtin
from petlbench.request import Request


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--backbone", default="vit_base_patch16_224")
    parser.add_argument("--image-size", default="224")
    parser.add_argument("--methods", default=",".join(builtin()))
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    request = Request(
        methods=options.methods.split(","),
        tasks=["digits"],
        backbone=options.backbone,
        device=options.device,
        jobs=1,
        settings={"protocol.image_size": options.image_size, "protocol.precision": "fp32"},
    )
    made = plan.make(request, sketch=True)
    print(f"{options.backbone}, {options.image_size} px, fp32, {options.device}, one image")
    print(f"{'method':<18}{'latency':>9}")
    for spec in made.specs:
        ratio = speed.latency(spec, made.machine)
        merged = "  merged" if spec.method.build().merges else ""
        print(f"{spec.method.label:<18}{ratio:>8.2f}x{merged}", flush=True)


if __name__ == "__main__":
    main()
