"""Many small runs on one machine: side by side against one after another, and the prediction.

    python benchmarks/many_runs.py [--methods A,B] [--tasks A,B] [--repeats 1]

The runs of suite `mini`, as whole processes of `petlbench run`: with the default number of workers,
and one after another with all cores. Before, `petlbench plan` measures the methods' speeds in a
fresh cache and predicts the wall time of each; the image cache is warm in both.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time

from petlbench import estimate, plan
from petlbench.request import Request


def timed(arguments: list[str]) -> float:
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "petlbench", *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="convpass,lora,linear,full")
    parser.add_argument("--tasks", default="digits,scene_count")
    parser.add_argument("--repeats", type=int, default=1)
    args = parser.parse_args()
    request = ["--methods", args.methods, "--tasks", args.tasks, "--keep", "none"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PETLBENCH_CACHE"] = f"{folder}/cache"
        warm = ["run", *request[2:], "--methods", "linear", "--epochs", "2"]
        timed([*warm, "--results", f"{folder}/warm", "--keep", "none"])
        for repeat in range(args.repeats):
            seconds = {}
            for name, jobs in (("default", None), ("one after another", 1)):
                made = plan.make(
                    Request(
                        methods=args.methods.split(","),
                        tasks=args.tasks.split(","),
                        jobs=jobs,
                        results=f"{folder}/none",
                    )
                )
                predicted, _ = estimate.wall_seconds(made, measure=True)
                assert predicted is not None
                results = ["--results", f"{folder}/{name}-{repeat}"]
                more = ["--jobs", str(jobs)] if jobs else []
                seconds[name] = timed(["run", *request, *results, *more])
                machine, runs = made.machine, len(made.specs)
                print(
                    f"{name}: {machine.jobs} at a time, {machine.threads} threads each: {runs} "
                    f"runs in {seconds[name]:.1f} s = {3600 * runs / seconds[name]:.0f} runs/hour; "
                    f"predicted {predicted:.1f} s ({predicted / seconds[name] - 1:+.0%})",
                    flush=True,
                )
            ratio = seconds["one after another"] / seconds["default"]
            print(f"ratio one after another / default: {ratio:.2f}", flush=True)


if __name__ == "__main__":
    main()
