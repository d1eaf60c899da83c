"""RunSpec -> Record: the only place that knows the order of the steps."""

from __future__ import annotations

import ctypes
import io
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from petlbench import __version__, backbone, weights
from petlbench.data import cache
from petlbench.data.normalise import Normalise
from petlbench.errors import RunError
from petlbench.evaluate import outputs, predict
from petlbench.method import Batches
from petlbench.spec import RunSpec
from petlbench.store import SCHEMA, Record, Store, unwritable, write_bytes
from petlbench.task import load_suite
from petlbench.train import train

EXTRAS = {"peft": "peft", "open_clip_torch": "open_clip"}  # recorded where a run used them
FEATURES_AT_MOST = 2 * 2**30  # bytes kept in memory of what is frozen in front


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
    compile: bool = False  # blocks by torch.compile


def run(
    spec: RunSpec,
    store: Store,
    machine: Machine,
    on_progress: Callable[[str], None] = lambda message: None,
) -> Record:
    """Execute one run and store its record; a run that fails is a record too."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    record: Record = {
        "schema": SCHEMA,
        "key": spec.key,
        "fingerprint": spec.fingerprint,
        "spec": spec.as_dict(),
        "started": started,
        "environment": _environment(machine),
    }
    try:
        measured, artifacts = measure(spec, machine, on_progress)
        record |= {"status": "done", **measured}
    except Exception as error:
        artifacts = {}
        record |= {
            "status": "failed",
            "error": {
                "type": type(error).__name__,
                "message": str(error),
                "traceback": traceback.format_exc(),
            },
        }
    try:
        for suffix, content in artifacts.items():
            write_bytes(store.artifacts / f"{spec.key}{suffix}", content)
        store.write(record)
    except OSError as error:
        raise unwritable(store.folder, error) from error
    return record


def measure(
    spec: RunSpec, machine: Machine, on_progress: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Train and test: what the record holds beyond its spec, and the files kept beside it."""
    torch.set_num_threads(machine.threads)
    device = torch.device(machine.device)
    rules = spec.rules
    torch.backends.cudnn.allow_tf32 = rules["precision"] != "fp32"  # fp32 means fp32
    suite = load_suite(spec.suite)
    (task,) = suite.select([spec.task])
    root = Path(machine.data_root) if machine.data_root else None
    reads: Counter[str] = Counter()

    def images(split: str) -> cache.Images:
        opened = suite.open_split(task, split, root, spec.seed)
        if opened.members != spec.members[split]:
            raise RunError(f"the list of {task.name}/{split} changed since the run was planned.")
        reads[split] += 1
        size, resize = rules["image_size"], rules["resize"]
        note = f"decoding {split}"
        return cache.load(opened, size, resize, lambda i, n: on_progress(f"{note} {i}/{n}"))

    begin = time.perf_counter()
    peak_known = reset_peak(device)
    training = images(rules["train_split"])
    method = spec.method.build()
    model = prepare(spec, machine)
    trainable, head = backbone.count_trained(model)
    if trainable != (declared := method.num_trainable(model.shape)):
        raise RunError(
            f"{spec.method.label} trains {trainable:,} parameters and declares {declared:,}; "
            "see: petlbench check"
        )

    normalise = Normalise(rules["mean"], rules["std"], device)
    bf16 = rules["precision"] == "bf16"
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        method.calibrate(model, batches(training, normalise))
    setup_seconds = time.perf_counter() - begin
    begin = time.perf_counter()
    fitted = fit(
        model,
        torch.from_numpy(training.pixels),
        torch.from_numpy(training.labels),
        rules,
        spec.seed,
        lambda epoch, loss: on_progress(f"epoch {epoch}/{rules['epochs']} loss {loss:.3f}"),
    )
    train_seconds = time.perf_counter() - begin

    # Every choice has been made: the one time that test images are read.
    test = images(rules["test_split"])
    on_progress(f"testing on {len(test.labels)} images")
    begin = time.perf_counter()
    predictions = predict(model, torch.from_numpy(test.pixels), normalise, bf16).numpy()
    measured = {
        "test": {"correct": int((predictions == test.labels).sum()), "total": len(test.labels)},
        "test_reads": reads[rules["test_split"]],
        "parameters": {"trainable": trainable, "head": head},
        "checkpoint_keys_left_out": model.left_out,
        "stored_bytes": method.stored_bytes(backbone.stored_tensors(model)),
        "setup_seconds": round(setup_seconds, 4),
        "train_seconds": round(train_seconds, 4),
        "test_seconds": round(time.perf_counter() - begin, 4),
        "peak_bytes": peak_bytes(device) if peak_known else None,
        "frozen_stages": fitted.frozen_stages,
        "micro_batches": fitted.micro_batches,
        "train_loss": [round(loss, 6) for loss in fitted.loss],
        "data": {"train": training.sha256, "test": test.sha256, "source": training.source},
    }
    artifacts = {}
    if machine.keep in ("all", "predictions"):
        buffer = io.BytesIO()
        np.savez_compressed(
            buffer, predictions=predictions.astype(np.int32), labels=test.labels.astype(np.int32)
        )
        artifacts[".predictions.npz"] = buffer.getvalue()
    if machine.keep == "all":
        kept = backbone.stored_tensors(model)
        tensors = {name: p.detach().cpu().contiguous() for name, p in kept.items()}
        artifacts[".safetensors"] = save(tensors, {"spec": json.dumps(spec.as_dict())})
    return measured, artifacts


def prepare(spec: RunSpec, machine: Machine, adapt: bool = True) -> backbone.Backbone:
    """The adapted model (or the backbone alone), ready to train on the machine's device."""
    torch.manual_seed(spec.seed)  # a random backbone is the seed's own
    rules = spec.rules
    size, options = rules["image_size"], weights.options(rules)
    model: backbone.Backbone = weights.build(spec.backbone, size, rules["drop_path"], **options)
    torch.manual_seed(spec.seed)  # again: head and method do not depend on how weights came
    model.prepare(spec.classes, prompts(spec))
    if adapt:
        spec.method.build().attach(model)
    model.use_fused_attention(machine.attention == "fused")
    model.recompute = machine.recompute
    if spec.rules["precision"] == "bf16":
        model.store_frozen(torch.bfloat16)
    if machine.compile:
        model.compile_blocks()
    model.to(machine.device)
    return model


def prompts(spec: RunSpec) -> list[str]:
    """One text per class, where the protocol makes the head of them."""
    if spec.rules.get("head") != "text":
        return []
    names = spec.members["classes"].split("\n")
    return [spec.rules["prompt"].replace("{}", name) for name in names]


def batches(split: cache.Images, normalise: Normalise) -> Batches:
    """What a method may look at before training: images in the order of their list."""

    def of(size: int) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(split.labels), size):
            pixels = torch.from_numpy(split.pixels[start : start + size])
            labels = torch.from_numpy(split.labels[start : start + size])
            yield normalise(pixels), labels.to(normalise.device)

    return of


@dataclass(frozen=True)
class Fitted:
    """What training left besides the weights."""

    loss: list[float]  # mean of each epoch
    frozen_stages: int  # computed once per image instead of once per epoch
    micro_batches: int  # parts in which a batch had to be taken for lack of memory


def fit(
    model: backbone.Backbone,
    pixels: Tensor,
    labels: Tensor,
    rules: dict[str, Any],
    seed: int,
    on_epoch: Callable[[int, float], None] = lambda epoch, loss: None,
) -> Fitted:
    """Train on images (N, 3, S, S) uint8; what is frozen in front is computed once per image."""
    device = next(model.parameters()).device
    normalise = Normalise(rules["mean"], rules["std"], device)
    inputs, stages = resident(pixels, device), model.frozen_stages()
    forward: Callable[[Tensor], Tensor] = lambda images: model(normalise(images))  # noqa: E731

    def frozen(images: Tensor) -> Tensor:
        encode = partial(model.eval().encode, stop=stages)
        bf16 = rules["precision"] == "bf16"
        return outputs(lambda batch: encode(normalise(batch)), images, device, bf16)

    if stages > 1 and frozen(inputs[:1]).nbytes * len(pixels) <= FEATURES_AT_MOST:
        inputs = frozen(inputs)
        forward = partial(model, start=stages)
    else:  # an embedding alone is not worth the memory
        stages = 0
    loss, parts = train(model, forward, inputs, labels.to(device), rules, seed, on_epoch)
    return Fitted(loss, stages, parts)


def resident(pixels: Tensor, device: torch.device) -> Tensor:
    """The images on the device where they take up at most a quarter of its memory."""
    if device.type == "cuda":
        _, memory = torch.cuda.mem_get_info(device)
        return pixels.to(device) if pixels.nbytes <= memory // 4 else pixels
    return pixels.to(device)


def reset_peak(device: torch.device) -> bool:
    """Start measuring; False where the peak of one run cannot be told from that of another."""
    if device.type == "cuda":
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
        command = ("git", "-C", str(root), *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--", "petlbench", "methods")
        return git("rev-parse", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.SubprocessError):
        return None
