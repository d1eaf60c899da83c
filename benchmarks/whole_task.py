"""A whole task, from images on disk to the record: petlbench against a released-style loop.

    python benchmarks/whole_task.py --data-root DIR --checkpoint FILE [--epochs 20] [--method M]

Both train the same method on CIFAR-100 with 1,000 training images (DINOv2 ViT-S/14, 98 px) for the
same number of epochs, one after the other, each in a fresh process with all cores and, for
petlbench, an empty image cache. Seconds are those of the whole process, imports included.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def timed(command: list[str], cache: str) -> float:
    begin = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "PETLBENCH_CACHE": cache})
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2, help="of the loop's DataLoaders")
    args = parser.parse_args()
    files = ["--data-root", str(args.data_root), "--checkpoint", str(args.checkpoint)]
    epochs = ["--epochs", str(args.epochs)]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "petlbench", "run", "--suite", "vtab-1k", "--tasks"]
        command += ["cifar", "--methods", "convpass", "--seeds", "1", "--jobs", "1", *files]
        command += ["--backbone", "vit_small_patch14_dinov2", "--image-size", "98", *epochs]
        command += ["--set", f"protocol.warmup_epochs={args.epochs // 10}"]
        ours = timed([*command, "--results", f"{folder}/results"], f"{folder}/cache")
        (file,) = Path(folder, "results", "records").glob("*.json")
        record = json.loads(file.read_text())
    loop = [sys.executable, str(HERE / "reference_loop.py"), *files, *epochs]
    theirs = timed([*loop, "--workers", str(args.workers)], "unused")
    test, environment = record["test"], record["environment"]
    images = args.epochs * 1000
    print(f"{environment['processor']}, {environment['cores']} cores; {args.epochs} epochs")
    print(
        f"petlbench: {ours:.1f} s whole process; training {record['train_seconds']:.1f} s "
        f"({images / record['train_seconds']:.0f} images/s), test {record['test_seconds']:.1f} s "
        f"({test['total'] / record['test_seconds']:.0f} images/s), "
        f"{record['spec']['protocol']['precision']}, {environment['attention']} attention; "
        f"test accuracy {test['correct'] / test['total']:.4f}"
    )
    print(f"released-style loop: {theirs:.1f} s whole process (accuracies above)")
    print(f"ratio: {theirs / ours:.2f}")


if __name__ == "__main__":
    main()
