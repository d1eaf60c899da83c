"""How long a command takes that needs no torch, and a run until its first training step.

    python benchmarks/startup.py [--records 1000] [--repeats 5]

Whole processes, median of the repeats; the last column says whether torch was imported. The
leaderboards are those of a results folder with 1,000 records; the runs find a warm image cache, and
end where the gradient of the first batch would be computed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = (
    ["--help"],
    ["list", "methods"],
    ["list", "tasks"],
    ["list", "suites"],
    ["list", "protocols"],
    ["list", "backbones"],
    ["leaderboard", "--results", "RESULTS"],
    ["leaderboard", "--format", "csv", "--results", "RESULTS"],
)
TO_THE_FIRST_STEP = (
    "import os, sys\n"
    "from petlbench import cli, train\n"
    "train.backward = lambda *_: (print('FIRST STEP', file=sys.stderr, flush=True), os._exit(0))\n"
    "cli.main(sys.argv[1:])\n"
)
RUNS = (
    ["--backbone", "vit_mini"],
    ["--backbone", "vit_small_patch16_224", "--checkpoint", "random", "--image-size", "224"],
    ["--backbone", "vit_base_patch16_224", "--checkpoint", "random", "--image-size", "224"],
)
PROGRAM = (
    "import sys\n"
    "from petlbench.cli import main\n"
    "try:\n    main(sys.argv[1:])\n"
    "finally:\n    print('TORCH' if 'torch' in sys.modules else 'NO-TORCH', file=sys.stderr)\n"
)


def fill(folder: Path, count: int) -> None:
    """Synthetic records: 5 tasks x 5 seeds x as many methods as it takes."""
    (folder / "records").mkdir(parents=True)
    numbers = random.Random(0)
    for i in range(count):
        method, task, seed = i // 25, i % 5, i // 5 % 5
        record = {
            "schema": 1,
            "key": f"{i:016x}",
            "status": "done",
            "fingerprint": "0" * 12,
            "spec": {
                "suite": "synthetic",
                "task": f"task{task}",
                "group": f"group{task % 2}",
                "seed": seed,
                "method": {"name": "m", "label": f"m{method}", "source": None, "config": {}},
                "backbone": {"name": "vit", "checkpoint": "random", "image_size": 48},
                "protocol": {"name": "mini", "epochs": 1},
            },
            "test": {"correct": numbers.randint(100, 400), "total": 500},
            "parameters": {"trainable": 1000 * method, "head": 1290},
            "stored_bytes": 4000,
            "train_seconds": 1.0,
            "test_seconds": 0.1,
            "peak_bytes": 10**8,
            "train_loss": [1.0] * 12,
            "data": {"train": f"{task}", "test": f"{task}"},
        }
        (folder / "records" / f"{i:016x}.json").write_text(json.dumps(record, indent=1))


def timed(program: str, words: list[str]) -> tuple[float, str]:
    """Seconds of the whole process, and the last line of its standard error."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True)
    seconds = time.perf_counter() - begin
    assert done.returncode == 0, done.stderr
    return seconds, done.stderr.strip().splitlines()[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fill(folder, args.records)
        os.environ["PETLBENCH_CACHE"] = str(folder / "cache")
        for command in COMMANDS:
            words = [str(folder) if word == "RESULTS" else word for word in command]
            results = [timed(PROGRAM, words) for _ in range(args.repeats)]
            seconds = statistics.median(seconds for seconds, _ in results)
            print(f"{' '.join(command):<45} {seconds:.2f} s   {results[-1][1]}", flush=True)
        for options in RUNS:
            words = ["run", "--tasks", "digits", "--methods", "convpass", "--jobs", "1"]
            words += [*options, "--results", str(folder / "unused")]
            timed(TO_THE_FIRST_STEP, words)  # warms the cache
            results = [timed(TO_THE_FIRST_STEP, words) for _ in range(args.repeats)]
            seconds = statistics.median(seconds for seconds, _ in results)
            print(f"{'run ' + options[1]:<45} {seconds:.2f} s   {results[-1][1]}", flush=True)


if __name__ == "__main__":
    main()
