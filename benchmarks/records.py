"""Seconds and memory of the commands that read results, over 100,000 synthetic records.

    python benchmarks/records.py [--shapes many,large,predicted] [--folder DIR] [--profile]

Every command is a process of its own, as a user starts it. `many`: 33 comparisons of 32 methods,
19 tasks and 5 seeds. `large`: one of 165 seeds. `predicted`: one of 5 seeds whose predictions are
kept, on test sets of VTAB-1K's sizes. With --folder the records stay there for another time; with
--profile the commands run under cProfile instead, and what took longest is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from petlbench.spec import identify
from petlbench.store import Store
from petlbench.task import load_suite

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import synthetic

METHODS, TASKS, SEEDS = 32, 19, 5
COMPARISONS = 33


def many(folder: Path) -> None:
    """33 comparisons: the same records, each time of a protocol with more epochs."""
    for record in synthetic.records(METHODS, TASKS, SEEDS):
        for i in range(COMPARISONS):
            record["spec"]["protocol"]["epochs"] = 20 + i
            record["key"], record["fingerprint"] = identify(record["spec"])
            (folder / "records" / f"{record['key']}.json").write_text(json.dumps(record))


def large(folder: Path) -> None:
    """As many records of one comparison."""
    synthetic.write(folder, synthetic.records(METHODS, TASKS, COMPARISONS * SEEDS), keep=False)


def predicted(folder: Path) -> None:
    """One comparison, every test image's prediction kept."""
    for task in load_suite("vtab-1k").tasks:
        own = {task.name: task.group}
        found = synthetic.records(METHODS, own, SEEDS, images=task.sizes["test"])
        store = Store(synthetic.write(folder, found, keep=False))
        for record in found:
            file = store.artifacts / f"{record['key']}.predictions.npz"
            np.savez_compressed(file, **synthetic.predictions(record))  # as runs do


SHAPES: dict[str, Callable[[Path], None]] = {"many": many, "large": large, "predicted": predicted}


def commands(folder: Path, out: Path) -> Iterator[list[str]]:
    """What is measured; where there are several comparisons, `compare` takes one of them."""
    one = json.loads(next((folder / "records").iterdir()).read_text())["fingerprint"]
    results = ["--results", str(folder)]
    chosen = [*results, "--fingerprint", one]
    yield ["leaderboard", *results, "-o", str(out / "leaderboard.csv")]
    yield ["compare", "convpass", "lora", *chosen, "-o", str(out / "two.md")]
    yield ["compare", *chosen, "-o", str(out / "all.md")]
    yield ["report", *results, "-o", str(out / "report.html")]


def measured(words: Sequence[str]) -> tuple[float, float, int]:
    """Seconds of the whole process, of its processor time, and its peak memory in bytes."""
    begin = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "petlbench", *words])
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"petlbench {' '.join(words)} failed")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit


def profiled(words: Sequence[str], lines: int = 25) -> None:
    with tempfile.NamedTemporaryFile() as file:
        program = [sys.executable, "-m", "cProfile", "-o", file.name, "-m", "petlbench"]
        subprocess.run([*program, *words], check=True)
        pstats.Stats(file.name).sort_stats("cumulative").print_stats(r"petlbench|numpy|json", lines)


def bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        for shape in args.shapes.split(","):
            folder = (args.folder or Path(scratch)) / shape
            if not folder.exists():
                (folder / "records").mkdir(parents=True)
                SHAPES[shape](folder)
            count = len(list((folder / "records").iterdir()))
            print(f"{shape}: {count:,} records, {bytes_of(folder) / 1e6:,.0f} MB")
            for words in commands(folder, Path(scratch)):
                if args.profile:
                    profiled(words)
                    continue
                seconds, processor, peak = measured(words)
                what = " ".join(word for word in words[:3] if not word.startswith("-"))
                what = what.replace(str(folder), "").strip()
                size = Path(words[-1]).stat().st_size
                print(
                    f"{what:<22}{seconds:>8.1f} s{processor:>8.1f} s of processor"
                    f"{peak / 1e6:>8,.0f} MB{size / 1e6:>8.2f} MB written",
                    flush=True,
                )


if __name__ == "__main__":
    main()
