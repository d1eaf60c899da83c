"""RunSpec -> Record: the only place that knows the order of the steps."""

from __future__ import annotations

import ctypes
import hashlib
import io
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from petlbench import __version__, backbone, costs, parallel, problems, search, weights
from petlbench.data import cache
from petlbench.data.normalise import Normalise
from petlbench.data.vault import Data, Vault
from petlbench.errors import RunError, out_of_memory
from petlbench.method import Batches
from petlbench.spec import RunSpec
from petlbench.store import SCHEMA, Record, Store, Unwritable
from petlbench.task import load_suite

# recorded where a run used them
EXTRAS = {"peft": "peft", "open_clip_torch": "open_clip", "optuna": "optuna"}
# batches are taken in parts already where a problem allows it
MORE_MEMORY = (
    "fewer runs at a time (--jobs 1), activations twice (--recompute), smaller images "
    "(--image-size) or a smaller backbone need less."
)


@dataclass(frozen=True)
class Machine:
    """Where and how a run is executed: what may change its speed, and at most its last bits."""

    device: str = "cpu"
    threads: int = 1
    jobs: int = 1  # runs side by side
    data_root: str | None = None
    keep: str = "all"  # "all", "predictions" or "none"
    attention: str = "explicit"  # or "fused": the same formula in another kernel
    recompute: bool = False  # activations again in the backward pass: less memory, same result
    compile: bool = False  # blocks by torch.compile, on a GPU steps as a CUDA graph
    workers: int = 0  # processes that prepare augmented images
    peek: bool = False  # test ten times over training as well, and tell; changes no result
    devices_per_run: int = 1  # on several, processes with a share of every batch each


def run(
    spec: RunSpec,
    store: Store,
    machine: Machine,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Record:
    """Execute one run, after its search, and store its record; a run that fails is a record too.

    Where another process finished the same run meanwhile, its record counts and is returned.
    """
    record = _started(spec)
    artifacts: dict[str, bytes] = {}
    try:
        tuned = spec
        if spec.search:
            record["search"] = _search(spec, store, machine, on_progress)
            tuned = search.tuned(spec, record["search"])
            record["tuned"] = tuned.as_dict()
        measured, artifacts = measure(tuned, machine, on_progress)
        digests = {name: hashlib.sha256(each).hexdigest() for name, each in artifacts.items()}
        record |= {"status": "done", **measured, "artifacts": digests}
    except Unwritable:
        raise
    except Exception as error:
        record |= _failed(error)
    record["environment"] = _environment(machine)
    if (theirs := store.read(spec.key, machine.peek)) is not None:
        return theirs
    store.write(record, artifacts)
    return record


def died(spec: RunSpec, store: Store, machine: Machine, why: str) -> Record:
    """Store the record of a run whose process died; or give the one that it had stored before.

    It tells of no environment: the process may have been on another machine than this one.
    """
    if (known := store.read(spec.key, machine.peek)) is not None:
        return known
    record = _started(spec) | _failed(RunError(why))
    store.write(record)
    return record


def _search(
    spec: RunSpec, store: Store, machine: Machine, on_progress: Callable[[str], None]
) -> dict[str, Any]:
    """The trials of a run, made or read (see search.conduct)."""

    def attempt(trial: RunSpec, name: str) -> Record:
        with store.claim(trial.key, wait=True):  # another seed of the method may be making it
            known = store.read_trial(trial.key)
            return known or _try(
                trial, store, machine, lambda message: on_progress(f"{name} {message}")
            )

    found = search.conduct(spec, attempt)
    if found["winner"] is None:  # the cause may be a broken image: the next time starts anew
        for told in found["trials"]:
            store.forget_trial(told["key"])
    return found


def _try(
    trial: RunSpec, store: Store, machine: Machine, on_progress: Callable[[str], None]
) -> Record:
    """Make a trial and store its record. It fails by itself, but not for lack of memory or disk."""
    record = _started(trial)
    try:
        measured, _ = measure(trial, replace(machine, keep="none", peek=False), on_progress)
        record |= {"status": "done", **measured}
    except Exception as error:
        if isinstance(error, OSError) or out_of_memory(error):
            raise
        record |= _failed(error)
    record["environment"] = _environment(machine)
    store.write_trial(record)
    return record


def _started(spec: RunSpec) -> Record:
    return {
        "schema": SCHEMA,
        "key": spec.key,
        "fingerprint": spec.fingerprint,
        "spec": spec.as_dict(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _failed(error: Exception) -> dict[str, Any]:
    message = str(error)
    if out_of_memory(error):
        message = f"out of memory ({message}): {MORE_MEMORY}"
    told = {"type": type(error).__name__, "message": message}
    return {"status": "failed", "error": told | {"traceback": traceback.format_exc()}}


def measure(
    spec: RunSpec, machine: Machine, on_progress: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Train and test: what the record holds beyond its spec, and the files kept beside it."""
    if machine.devices_per_run > 1:
        return _measure_in_ranks(spec, machine, on_progress)
    torch.set_num_threads(machine.threads)
    device = torch.device(machine.device)
    rules, problem = spec.rules, problems.load(spec.problem)
    torch.backends.cudnn.allow_tf32 = rules["precision"] != "fp32"  # fp32 means fp32
    root = Path(machine.data_root) if machine.data_root else None
    suite = load_suite(spec.suite).at(root)
    (task,) = suite.select([spec.task])
    metric = task.metric or problem.METRICS[0]
    vault = Vault(spec, suite, task, root, on_progress, machine.workers)

    begin = time.perf_counter()
    peak_known = reset_peak(device)
    training = vault.training()
    looks: list[dict[str, Any]] = []  # at the test split, between epochs; they decide nothing

    def on_epoch(epoch: int, loss: float) -> None:
        on_progress(f"epoch {epoch}/{rules['epochs']} loss {loss:.3f}")
        if machine.peek and epoch % max(1, rules["epochs"] // 10) == 0 and epoch < rules["epochs"]:
            with vault.opened():
                looks.append({"epoch": epoch, metric: tested(vault.test()).metrics[metric]})

    def tested(test: Data) -> problems.Outcome:
        found = problem.outputs(model, test, rules)
        return problem.score(found, test, spec.ordinal)  # type: ignore[no-any-return]

    with vault.seal(training):
        method = spec.method.build()
        plain: list[dict[str, int]] = []  # what the backbone takes alone

        def on_plain(model: backbone.Backbone) -> None:
            if not method.merges:
                plain.append(costs.of_inference(model, rules["image_size"]))

        model = prepare(spec, machine, on_plain=on_plain)
        method.require(model.shape)  # a trial's settings are nowhere asked about before
        trainable, head = backbone.count_trained(model)
        if trainable != (declared := method.num_trainable(model.shape)):
            raise RunError(
                f"{spec.method.label} trains {trainable:,} parameters and declares {declared:,}; "
                "see: petlbench check"
            )
        bf16 = rules["precision"] == "bf16"
        normalise = Normalise(rules["mean"], rules["std"], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            method.calibrate(model, batches(training.images, normalise))
        parallel.align(model, spec.seed)
        setup_seconds = time.perf_counter() - begin
        begin = time.perf_counter()
        fitted = problems.Fitted()
        if trainable or head:
            fitted = problem.fit(model, training, rules, spec.seed, on_epoch)
        train_seconds = time.perf_counter() - begin

    # Every choice has been made: the one time that test images are read.
    test = vault.test()
    on_progress(f"testing on {len(test)} images")
    begin = time.perf_counter()
    outcome = tested(test)
    test_seconds = time.perf_counter() - begin
    measured = {
        "test": outcome.as_dict(metric),
        "parameters": {"trainable": trainable, "head": head},
        "checkpoint_keys_left_out": model.left_out,
        "stored_bytes": method.stored_bytes(backbone.stored_tensors(model)),
        "shared_bytes": costs.shared_bytes(model),
        "setup_seconds": round(setup_seconds, 4),
        "train_seconds": round(train_seconds, 4),
        "test_seconds": round(test_seconds, 4),
        "peak_bytes": peak_bytes(device) if peak_known else None,
        "frozen_stages": fitted.frozen_stages,
        "micro_batches": fitted.micro_batches,
        "train_loss": [round(loss, 6) for loss in fitted.loss],
        "test_reads": vault.reads[rules["test_split"]],
        "data": {
            "train": training.images.sha256,
            "test": test.images.sha256,
            "source": training.images.source,
            "test_images_in_training": len(cache.overlap(training.images, test.images)),
        },
    }
    # what remains beside the backbone, per image; a method that merges leaves nothing
    taken = costs.of_inference(model, rules["image_size"]) if plain else {}
    measured["inference"] = {
        name: taken[name] - plain[0][name] if plain else 0 for name in ("parameters", "flops")
    }
    if machine.peek:
        curve = [*looks, {"epoch": rules["epochs"], metric: outcome.metrics[metric]}]
        measured["peek"] = {"metric": metric, "curve": curve, "best": max(c[metric] for c in curve)}
    arrays = dict(outcome.arrays)
    if task.targets and not spec.sealed_splits:
        measured["targets"], further = _targets(model, vault, rules, metric)
        arrays |= further
    artifacts = {}
    if machine.keep in ("all", "predictions"):
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)
        artifacts[".predictions.npz"] = buffer.getvalue()
    if machine.keep == "all":
        kept = backbone.stored_tensors(model)
        tensors = {name: p.detach().cpu().contiguous() for name, p in kept.items()}
        # one entry: safetensors writes several in any order
        told = spec.as_dict() | {"class_names": task.class_names}
        artifacts[".safetensors"] = save(tensors, {"spec": json.dumps(told)})
    return measured, artifacts


def _measure_in_ranks(
    spec: RunSpec, machine: Machine, on_progress: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """`measure` in a process per device; what the first one gives, and the most that one took."""
    devices = parallel.devices(machine.device, machine.devices_per_run)
    first, *others = (replace(machine, device=each, devices_per_run=1) for each in devices)
    calls = [partial(_rank, spec, first, on_progress)]
    silent = lambda message: None  # noqa: E731
    calls += [partial(_rank, spec, replace(each, keep="none"), silent) for each in others]
    found = parallel.launch(calls, devices, machine.threads)
    measured, artifacts, extras = found[0]
    for name in ("peak_bytes", "micro_batches"):
        most = [of_rank[name] for of_rank, *_ in found]
        measured[name] = None if None in most else max(most)
    for module in extras:  # so that the record's environment tells of them
        import_module(module)
    return measured, artifacts


def _rank(
    spec: RunSpec, machine: Machine, on_progress: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, bytes], list[str]]:
    """And the extra libraries that were used."""
    return *measure(spec, machine, on_progress), [m for m in EXTRAS.values() if m in sys.modules]


def _targets(
    model: backbone.Backbone, vault: Vault, rules: dict[str, Any], metric: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The outcome on each further test split; a split is read once, whatever is asked about it.

    And the arrays of each, named <target>/<array>.
    """
    problem = problems.load(vault.spec.problem)
    found: dict[str, Any] = {}
    arrays: dict[str, Any] = {}
    for split in dict.fromkeys(target.split for target in vault.task.targets):
        test = vault.test(split)
        vault.on_progress(f"testing on {len(test)} images of {split}")
        outputs = problem.outputs(model, test, rules)
        for target in vault.task.targets:
            if target.split == split:
                outcome = problem.score(outputs, test, vault.spec.ordinal, target.among_present)
                values = outcome.as_dict(metric)
                found[target.name] = {"group": target.group, "data": test.images.sha256, **values}
                arrays |= {f"{target.name}/{name}": each for name, each in outcome.arrays.items()}
    return {t.name: found[t.name] for t in vault.task.targets}, arrays


def prepare(
    spec: RunSpec,
    machine: Machine,
    adapt: bool = True,
    on_plain: Callable[[backbone.Backbone], None] = lambda model: None,
) -> backbone.Backbone:
    """The adapted model (or the backbone alone), ready to train on the machine's device.

    `on_plain` is called with the backbone before the method attaches.
    """
    torch.manual_seed(spec.seed)  # a random backbone is the seed's own
    rules, method = spec.rules, spec.method.build()
    size, options = rules["image_size"], weights.options(rules)
    model: backbone.Backbone = weights.build(spec.backbone, size, rules["drop_path"], **options)
    torch.manual_seed(spec.seed)  # again: head and method do not depend on how weights came
    problems.load(spec.problem).prepare(model, spec, method)
    on_plain(model)
    if adapt:
        method.attach(model)
    model.use_fused_attention(machine.attention == "fused")
    model.recompute = machine.recompute
    if spec.rules["precision"] == "bf16":
        model.store_frozen(torch.bfloat16)
    model.to(machine.device)
    if machine.compile:
        model.compile_blocks()
    return model


def batches(split: cache.Images, normalise: Normalise) -> Batches:
    """What a method may look at before training: images in the order of their list."""

    def of(size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(split.labels), size):
            pixels = torch.from_numpy(split.pixels[start : start + size])
            labels = torch.from_numpy(split.labels[start : start + size])
            yield normalise(pixels), labels.to(normalise.device)

    return of


def reset_peak(device: torch.device) -> bool:
    """Start measuring; False where the peak of one run cannot be told from that of another."""
    if device.type == "cuda":
        # a fresh worker has not touched the device yet
        torch.cuda.init()  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats(device)
        return True
    if sys.platform != "linux":
        return False
    ctypes.CDLL(None).malloc_trim(0)  # what an earlier run in this process left behind
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_bytes(device: torch.device) -> int:
    """Peak memory since the reset: allocated on the GPU, or resident in the process (Linux)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _environment(machine: Machine) -> dict[str, Any]:
    extras = [name for name, module in EXTRAS.items() if module in sys.modules]
    gpu = torch.cuda.get_device_name(machine.device) if machine.device.startswith("cuda") else None
    return {
        "device": machine.device,
        "threads": machine.threads,
        "jobs": machine.jobs,
        "devices_per_run": machine.devices_per_run,
        "attention": machine.attention,
        "recompute": machine.recompute,
        "compile": machine.compile,
        "cores": os.cpu_count(),
        "processor": processor(),
        "gpu": gpu,
        "platform": platform.platform(terse=True),
        "python": platform.python_version(),
        "petlbench": __version__,
        "git_commit": _git_commit(),
        **{name: metadata.version(name) for name in ("torch", "timm", "numpy", "pillow", *extras)},
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """The commit of petlbench itself when it runs from a checkout; "+" marks local changes."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return None

    def git(*arguments: str) -> str:
        # no locks: a process that is killed here must not leave one behind
        command = ("git", "--no-optional-locks", "-C", str(root), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "petlbench", "methods")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
