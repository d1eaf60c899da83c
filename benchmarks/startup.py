"""How long a command takes that needs no torch, and a run until its first training step.

    python benchmarks/startup.py [--records 1000] [--repeats 5]

Whole processes, median of the repeats; the last column says whether torch was imported. The
leaderboards are those of a results folder with 1,000 records; the runs find a warm image cache, and
end where the gradient of the first batch would be computed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import synthetic

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
    "import os, sys, torch\n"
    "from petlbench import cli\n"
    "def stop(*_):\n    print('FIRST STEP', file=sys.stderr, flush=True)\n    os._exit(0)\n"
    "torch.Tensor.backward = stop\n"
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
        made = synthetic.records(args.records // 25, 5, 5)
        synthetic.write(folder, made, keep=False)
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
