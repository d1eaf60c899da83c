"""What a sweep of 32 methods x 19 tasks x 5 seeds x 32 trials (97,280 runs) asks of one machine.

    python benchmarks/scale.py [--parts plan,resume,claims] [--folder DIR] [--profile]

`plan`: seconds and peak memory of `petlbench plan` as a user starts it, on VTAB-1K's lists at their
published sizes (the images need not be there). The same number of runs in two ways: 3,040 runs with
a search of 32 trials before each (trials serve all seeds, so 19,456 of them are made), and 97,280
runs without (160 seeds). Each with an empty results folder; with all records there and never read
before by this machine; and the same again. `resume`: the part of it that finds out what is done,
over those 97,280 records. `claims`: 64 processes on one results folder of 3,040 runs, each of which
claims, "runs" (a few milliseconds) and records what nobody else does. One run in fifty kills its
process, and another process takes its place. Counts runs that two processes had at the same time,
that were done twice, and that are missing in the end.

With --folder everything stays there for another time; with --profile plans run under cProfile.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pstats
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from petlbench.store import Store

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import synthetic

WORKERS = 64
DEATHS = 0.02  # of claimed runs


def requests(root: Path) -> dict[str, dict[str, Any]]:
    """The two sweeps, as keywords of `Request`."""
    from petlbench.method import builtin

    both = {
        "suite": "vtab-1k",
        "methods": sorted(builtin())[:32],
        "backbone": "vit_mini",  # so that nobody waits for 32 speeds to be measured
        "checkpoint": "random",
        "data_root": str(root),
        "device": "cpu",
        "settings": {"protocol.image_size": "48", "protocol.precision": "fp32"},
    }
    return {"searched": both | {"seeds": 5, "search": 32}, "runs": both | {"seeds": 160}}


def words(request: dict[str, Any], results: Path) -> list[str]:
    """The same as arguments of the command."""
    found = ["--results", str(results)]
    for name, value in request.items():
        if name == "settings":
            found += [word for k, v in value.items() for word in ("--set", f"{k}={v}")]
        else:
            text = ",".join(value) if isinstance(value, list) else str(value)
            found += [f"--{name.replace('_', '-')}", text]
    return found


def lists(root: Path) -> None:
    """VTAB-1K's list files."""
    from petlbench.task import load_suite

    for task in load_suite("vtab-1k").tasks:
        folder = root / task.name
        folder.mkdir(parents=True)
        for split, size in task.sizes.items():
            lines = (f"images/{split}/{i:06}.jpg {i % task.classes}\n" for i in range(size))
            (folder / f"{split}.txt").write_text("".join(lines))


def fill(request: dict[str, Any], folder: Path) -> None:
    """The records that the whole sweep would leave."""
    from petlbench import plan, search
    from petlbench.request import Request

    store = Store(folder)
    draws = random.Random(0)
    store.records.mkdir(parents=True)
    store.trials.mkdir()

    def write(spec: Any, place: Path, **more: Any) -> dict[str, Any]:
        found = record(spec, draws.randrange(1, 1000), **more)
        (place / f"{spec.key}.json").write_text(json.dumps(found, indent=1) + "\n")
        return found

    searched: dict[Any, Any] = {}
    for spec in plan.make(Request(**request, results=str(folder))).specs:
        if not spec.search:
            write(spec, store.records)
            continue
        row = spec.method.label, spec.task
        if row not in searched:
            searched[row] = search.conduct(spec, lambda trial, _: write(trial, store.trials))
        write(spec, store.records, search=searched[row])


def record(spec: Any, correct: int, **more: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "status": "done",
        "key": spec.key,
        "fingerprint": spec.fingerprint,
        "spec": spec.as_dict(),
        "started": "2026-01-01T00:00:00+00:00",
        "environment": {"petlbench": "0", "python": "3", "torch": "2", "processor": "any"},
        "data": {"train": spec.rules["train_split"], "test": spec.rules["test_split"]},
        "parameters": {"trainable": 1000, "head": 100},
        "stored_bytes": 4000,
        "train_loss": [round(2 / (epoch + 1), 6) for epoch in range(spec.rules["epochs"])],
        "test": {
            "total": 1000,
            "correct": correct,
            "metric": "accuracy",
            "metrics": {"accuracy": correct / 1000},
        },
        "setup_seconds": 1.0,
        "train_seconds": 60.0,
        "test_seconds": 10.0,
        "peak_bytes": None,
        **more,
    }


def measured(command: Sequence[str]) -> tuple[float, float, int, str]:
    """Seconds of a process, processor time with its workers, peak memory in bytes, and output."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    unit = 1 if sys.platform == "darwin" else 1024
    return seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * unit, told


def measure_plans(folder: Path, profile: bool) -> None:
    root = folder / "data"
    if not root.exists():
        lists(root)
    for name, request in requests(root).items():
        full, empty = folder / name, folder / "empty"
        if not full.exists():
            fill(request, full)
        # speeds of the methods are measured, and remembered, once
        subprocess.run(
            [sys.executable, "-m", "petlbench", "plan", *words(request | {"seeds": 1}, empty)],
            stdout=subprocess.DEVNULL,
            check=True,
        )
        for what, results in (("nothing there", empty), ("all there", full), ("again", full)):
            if profile:
                profiled(words(request, results))
                continue
            command = [sys.executable, "-m", "petlbench", "plan", *words(request, results)]
            seconds, processor, peak, told = measured(command)
            print(
                f"{name:<10}{what:<15}{seconds:>6.1f} s{processor:>6.1f} s of processor"
                f"{peak / 1e6:>7,.0f} MB   {told.splitlines()[0]}",
                flush=True,
            )


def measure_resume(folder: Path) -> None:
    """In a process for each time, with and without what is remembered of the records."""
    if not (folder / "runs").exists():
        lists(folder / "data")
        fill(requests(folder / "data")["runs"], folder / "runs")
    shutil.rmtree(folder / "cache" / "judged", ignore_errors=True)
    script = (
        "import sys, time, pathlib; from petlbench import judged;"
        "begin = time.perf_counter();"
        "found = judged.look(pathlib.Path(sys.argv[1]));"
        "print(f'{len(found):,} records: {time.perf_counter() - begin:.2f} s')"
    )
    for what in ("never read", "again"):
        command = [sys.executable, "-c", script, str(folder / "runs" / "records")]
        _, processor, _, told = measured(command)
        print(
            f"resume check, {what}: {told.strip()}, {processor:.2f} s of processor with imports",
            flush=True,
        )


def measure_claims(folder: Path) -> None:
    """Processes die here without a word; the operating system lets go of their claims."""
    found = synthetic.records(32, 19, 5)
    store = Store(folder)
    store.require_writable()
    (folder / "running").mkdir()
    begin = time.perf_counter()
    fork = multiprocessing.get_context("fork")  # the records are there already
    workers: dict[int, Any] = {}
    deaths = started = 0
    for number in range(WORKERS):
        workers[number] = fork.Process(target=work, args=(store, found, number, started))
        workers[number].start()
        started += 1
    while workers:
        for number, worker in list(workers.items()):
            worker.join(0.01)
            if worker.exitcode is None:
                continue
            if worker.exitcode == 0:
                del workers[number]
                continue
            deaths += 1
            workers[number] = fork.Process(target=work, args=(store, found, number, started))
            workers[number].start()
            started += 1
    seconds = time.perf_counter() - begin
    lines = [line for file in folder.glob("*.log") for line in file.read_text().splitlines()]
    finished = Counter(line.removeprefix("done ") for line in lines if line.startswith("done "))
    twice = sum(count - 1 for count in finished.values())
    missing = len({record["key"] for record in found} - {r["key"] for r in store.load()[0]})
    print(
        f"{len(found):,} runs by {WORKERS} processes, {deaths} of which died and were replaced: "
        f"{seconds:.1f} s; {lines.count('together')} runs by two at the same time, {twice} done "
        f"twice, {missing} missing"
    )


def work(store: Store, found: Sequence[dict[str, Any]], number: int, seed: int) -> None:
    """What a worker does, with a sleep for a run: claim, look again, run, record."""
    draws = random.Random(seed)
    with (store.folder / f"{number}.log").open("a", buffering=1) as log:
        left = list(found)
        while left:
            draws.shuffle(left)
            for record in left:
                with store.claim(record["key"], wait=False) as mine:
                    if not mine or store.read(record["key"]):
                        continue
                    running = store.folder / "running" / record["key"]
                    if running.exists() and running.read_text() != "dead":
                        log.write("together\n")
                    running.write_text(str(os.getpid()))
                    time.sleep(draws.uniform(0, 0.01))
                    if draws.random() < DEATHS:
                        running.write_text("dead")
                        os._exit(1)
                    store.write(record)
                    log.write(f"done {record['key']}\n")
                    running.unlink()
            left = [r for r in left if not (store.records / f"{r['key']}.json").exists()]


def profiled(arguments: Sequence[str], lines: int = 45) -> None:
    with tempfile.NamedTemporaryFile() as file:
        program = [sys.executable, "-m", "cProfile", "-o", file.name, "-m", "petlbench", "plan"]
        subprocess.run([*program, *arguments], check=True, stdout=subprocess.DEVNULL)
        pstats.Stats(file.name).sort_stats("cumulative").print_stats(r"petlbench|numpy|json", lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default="plan,resume,claims")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.folder or Path(scratch)
        os.environ["PETLBENCH_CACHE"] = str(folder / "cache")
        if "plan" in args.parts.split(","):
            measure_plans(folder, args.profile)
        if "resume" in args.parts.split(","):
            measure_resume(folder)
        if "claims" in args.parts.split(","):
            measure_claims(Path(scratch) / "claims")


if __name__ == "__main__":
    main()
