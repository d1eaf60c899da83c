"""Comparisons that nobody ran: records, and predictions that agree with them, for tests.

A test image is hard or easy for every method, a method strong or weak on every task, and a seed
lucky or not: so runs agree as real ones do. The same arguments always give the same numbers.

    found = records(methods=5, tasks=3, seeds=2)            # a list of records
    (comparison,) = load(write(tmp_path, found))[0]         # on disk, read by petlbench.results
    comparison = results(found)                             # the same, without a file
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from petlbench import leaderboard
from petlbench.results import Results
from petlbench.spec import identify
from petlbench.store import Store

Record = dict[str, Any]

METHODS = (
    *("linear", "lora", "adapter", "full", "convpass", "vpt", "ssf", "bitfit", "adaptformer"),
    *("repadapter", "fact_tt", "mona", "adapter_plus", "arc", "bi_adaptformer", "bi_lora"),
    *("compacter", "convpass_attn", "difffit", "dora", "dtl", "fact_tk", "gps", "houlsby"),
    *(
        "kadaptation",
        "layernorm",
        "lora_shared",
        "mlp_head",
        "partial",
        "sct",
        "vpt_shallow",
        "vqt",
    ),
)
TASKS = {  # VTAB-1K's, by the groups that it has
    "Natural": ("cifar", "caltech101", "dtd", "flowers102", "pets", "svhn", "sun397"),
    "Specialized": ("patch_camelyon", "eurosat", "resisc45", "diabetic_retinopathy"),
    "Structured": (
        *("clevr_count", "clevr_dist", "dmlab", "kitti", "dsprites_loc", "dsprites_ori"),
        *("smallnorb_azi", "smallnorb_ele"),
    ),
}
_WITHOUT_PARAMETERS = ("linear", "mlp_head")
_BACKBONE_BYTES = 343_000_000


def records(
    methods: int | Sequence[str] = 5,
    tasks: int | Mapping[str, str] = 3,
    seeds: int = 3,
    *,
    images: int = 200,
    retrieval: bool = False,
    suite: str = "synthetic",
    search: int = 0,
    peek: bool = False,
) -> list[Record]:
    """A finished run of every method, task and seed.

    Args:
        methods: Their names, or how many.
        tasks: Task -> group, or how many.
        images: Of the test set of every task.
        retrieval: Recalls of images and of two captions each, instead of accuracies.
        search: Trials of a search that every record tells of.
        peek: Whether the records tell the test score over training.
    """
    names = method_names(methods) if isinstance(methods, int) else methods
    groups = task_names(tasks) if isinstance(tasks, int) else tasks
    return [
        _record(method, task, group, seed, images, retrieval, suite, search, peek)
        for method in names
        for task, group in groups.items()
        for seed in range(seeds)
    ]


def method_names(count: int) -> list[str]:
    return [*METHODS[:count], *(f"method_{i}" for i in range(len(METHODS), count))]


def task_names(count: int) -> dict[str, str]:
    """Task -> group; few tasks come from several groups."""
    turns = [(name, group) for group, names in TASKS.items() for name in names]
    turns.sort(key=lambda turn: TASKS[turn[1]].index(turn[0]))
    turns += [(f"task_{i}", "Further") for i in range(len(turns), count)]
    order = [*TASKS, "Further"]
    return dict(sorted(turns[:count], key=lambda turn: order.index(turn[1])))


def predictions(record: Record) -> dict[str, NDArray[np.int32]]:
    """What the run of a record said about the test set: the arrays of its predictions file."""
    spec, test = record["spec"], record["test"]
    return _outcome(
        *(spec["method"]["name"], spec["task"], spec["seed"]), test["total"], "correct" not in test
    )


def write(folder: Path, found: Sequence[Record], keep: bool = True) -> Path:
    """The records, and with `keep` their predictions, as runs leave them; the folder."""
    store = Store(folder)
    for part in (store.records, store.artifacts):
        part.mkdir(parents=True, exist_ok=True)
    for record in found:
        (store.records / f"{record['key']}.json").write_text(json.dumps(record))
        if keep:
            arrays: dict[str, Any] = predictions(record)
            np.savez(store.artifacts / f"{record['key']}.predictions.npz", **arrays)
    return folder


def results(found: Sequence[Record], folder: Path | str = "nowhere", **how: Any) -> Results:
    """The one comparison of these records; `how` is that of `leaderboard.rank`."""
    how.setdefault("task_order", list(dict.fromkeys(record["spec"]["task"] for record in found)))
    board = leaderboard.rank(found, **how)
    return Results(board, {record["key"]: record for record in found}, Store(folder))


def _record(
    method: str,
    task: str,
    group: str,
    seed: int,
    images: int,
    retrieval: bool,
    suite: str,
    search: int,
    peek: bool,
) -> Record:
    test = _test(_outcome(method, task, seed, images, retrieval))
    metric = test["metric"]
    score = test["metrics"][metric]
    rng = _rng("costs", method)
    trainable = 0 if method in _WITHOUT_PARAMETERS else int(10 ** rng.uniform(4, 6.3))
    slow, epochs = rng.uniform(1, 3), 20
    if method == "full":
        trainable = 85_800_000
    rng = _rng("run", method, task, seed)
    pace, floor = rng.uniform(2, 6), 0.1 + 2 * (1 - score)
    loss = floor + (3 - floor) * np.exp(-pace * np.arange(1, epochs + 1) / epochs)
    record: Record = {
        "schema": 1,
        "spec": {
            "suite": suite,
            "task": task,
            "group": group,
            "classes": 0 if retrieval else 10,
            "seed": seed,
            "method": {"name": method, "source": None, "config": {}, "label": method},
            "backbone": {"name": "vit_mini", "checkpoint": "ab" * 32, "image_size": 48},
            "protocol": {
                **{"name": "synthetic", "epochs": epochs, "search_train_split": "train"},
                **{"search_val_split": "val", "train_split": "trainval", "test_split": "test"},
                **{"image_size": 48, "precision": "fp32"},
            },
            "members": {},
        },
        "started": "2026-01-01T00:00:00+00:00",
        "environment": {"device": "cpu", "petlbench": "0.1.0", "git_commit": None},
        "status": "done",
        "test": test,
        "test_reads": 1,
        "parameters": {"trainable": trainable, "head": 0 if retrieval else 7690},
        "stored_bytes": 4 * trainable + 31_000 if trainable < 80_000_000 else _BACKBONE_BYTES,
        "train_seconds": round(60 * slow * rng.uniform(0.95, 1.05), 3),
        "test_seconds": 2.0,
        "peak_bytes": int(1e9 * slow + 16 * trainable),
        "train_loss": [round(value, 6) for value in loss * rng.uniform(0.98, 1.02, epochs)],
        "data": {
            "train": _digest("train", task),
            "test": _digest("test", task),
            "source": {"layout": "synthetic"},
            "test_images_in_training": 0,
        },
    }
    if search:
        values = np.clip(score + rng.normal(-0.05, 0.04, search), 0, 1).round(6).tolist()
        record["search"] = {
            "trials": [{"config": {}, "value": value, "key": None} for value in values],
            "winner": int(np.argmax(values)),
            "metric": metric,
            "sampler": "random",
            "val_split": "val",
        }
        record["spec"]["search"] = {"trials": search, "sampler": "random", "space": {}}
    if peek:
        way = np.clip(score - 0.3 * np.exp(-pace * np.linspace(0, 1, epochs)), 0, 1)
        way = np.clip(way + rng.normal(0, 0.01, epochs), 0, 1)
        way[-1] = score
        curve = [{"epoch": i + 1, metric: value} for i, value in enumerate(way.tolist())]
        record["peek"] = {"metric": metric, "curve": curve, "best": max(way.tolist())}
    record["key"], record["fingerprint"] = identify(record["spec"])
    return record


def _outcome(
    method: str, task: str, seed: int, images: int, retrieval: bool
) -> dict[str, NDArray[np.int32]]:
    skill = 0.7 + _rng("task", task).normal(0, 0.4) - (0.4 if method == "linear" else 0)
    skill += _rng("skill", method).normal(0, 0.12) + _rng("fit", method, task).normal(0, 0.15)
    run = _rng("run", method, task, seed)
    skill += run.normal(0, 0.08)
    if retrieval:
        found = {}
        for name, count in (("text_rank_of_image", images), ("image_rank_of_text", 2 * images)):
            hard = _rng(name, task, count).normal(0, 1, count)
            lost = 3 * (hard + run.normal(0, 0.4, count) - skill)
            found[name] = np.minimum(np.exp(lost), count - 1).astype(np.int32)
        return found | {"image_of_text": np.arange(2 * images, dtype=np.int32) // 2}
    rng = _rng("images", task, images)
    labels, hard = rng.integers(0, 10, images), rng.normal(0, 1, images)
    wrong = hard + run.normal(0, 0.4, images) > skill
    misled = (labels + 1 + _rng("misled", task).integers(0, 9, images)) % 10
    return {
        "predictions": np.where(wrong, misled, labels).astype(np.int32),
        "labels": labels.astype(np.int32),
    }


def _test(outcome: Mapping[str, NDArray[np.int32]]) -> dict[str, Any]:
    if "labels" in outcome:
        total = len(outcome["labels"])
        correct = int((outcome["predictions"] == outcome["labels"]).sum())
        scores = {"accuracy": correct / total}
        return {"correct": correct, "total": total, "metric": "accuracy", "metrics": scores}
    ways = (("i2t", "text_rank_of_image"), ("t2i", "image_rank_of_text"))
    recalls = {
        f"{way}_r{k}": float((outcome[name] < k).mean()) for way, name in ways for k in (1, 5, 10)
    }
    metrics = {"mean_recall": sum(recalls.values()) / len(recalls), **recalls}
    return {"total": len(outcome[ways[0][1]]), "metric": "mean_recall", "metrics": metrics}


def _digest(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _rng(*parts: Any) -> np.random.Generator:
    return np.random.default_rng(int(_digest(*parts), 16))
