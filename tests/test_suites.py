"""Every suite that reads from disk, from files in its documented layout to the leaderboard."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from problems.test_retrieval import CONFIGURATION

import petlbench
from petlbench import results, task
from petlbench.leaderboard import Leaderboard
from petlbench.prepare import originals
from petlbench.prepare.examples import Example
from petlbench.statistics import panel as panels
from petlbench.store import Store
from petlbench.suites import domain_generalisation

SIZE = 16  # pixels
SETTINGS = {"protocol.image_size": SIZE, "protocol.epochs": 1, "protocol.warmup_epochs": 0}


def run(checkpoint: Path, root: Path, suite: str, **changes: Any) -> Leaderboard:
    """The board of one short comparison; nothing may fail."""
    request: dict[str, Any] = {
        "suite": suite,
        "data_root": str(root),
        "methods": ["linear", "lora"],
        "backbone": "vit_mini",
        "checkpoint": str(checkpoint),
        "settings": SETTINGS | changes.pop("settings", {}),
        "seeds": 1,
        "jobs": 1,
        "threads": 1,
        "device": "cpu",
        "results": f"results/{suite}",
    }
    result = petlbench.run(**request | changes)
    assert result.failed == 0 and result.board is not None
    assert all(row.complete for row in result.board.rows)
    return result.board


def picture(file: Path, label: int, number: int) -> None:
    """A flat colour for each label, another shade for each number, wider than high."""
    file.parent.mkdir(parents=True, exist_ok=True)
    colour = np.array([37 * label % 200, 91 * label % 200, 153 * label % 200]) + number % 50
    Image.new("RGB", (24, 18), tuple(int(value) for value in colour)).save(file)


def lines(folder: Path, name: str, classes: int, each: int, first: int = 0) -> str:
    """List lines of `each` images a class, and the images."""
    found = []
    for label in range(classes):
        for number in range(each):
            path = f"{name}/{label} {number}.png"
            picture(folder / path, label, first + number)
            found.append(f"{path} {label}\n")
    return "".join(found)


def test_few_shot(tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "data" / "oxford-pets"
    (folder / "annotations").mkdir(parents=True)
    for shots in (2, 4):
        for seed in (0, 1):
            listed = lines(folder / "images", f"{shots} {seed}", 37, shots, first=5 * seed)
            name = f"train_meta.list.num_shot_{shots}.seed_{seed}"
            (folder / "annotations" / name).write_text(listed)
    listed = lines(folder / "images", "test", 37, 1)
    (folder / "annotations" / "test_meta.list").write_text(listed)
    rules = {"protocol.resize_to": 18, "protocol.batch_size": 37}
    tasks = ["oxford_pets@2", "oxford_pets@4"]
    board = run(checkpoint, folder.parent, "few-shot", tasks=tasks, seeds=2, settings=rules)
    assert board.groups == {"2 shots": ("oxford_pets@2",), "4 shots": ("oxford_pets@4",)}
    assert board.protocol["augmentation"] == "noah" and board.protocol["mixup"] == 0.8
    records = Store("results/few-shot").load()[0]
    lists = {(r["spec"]["task"], r["spec"]["seed"]): r["data"]["train"] for r in records}
    assert len(lists) == len(set(lists.values())) == 4  # a list for each seed
    assert len({r["data"]["test"] for r in records}) == 1


def test_fgvc(tmp_path: Path, checkpoint: Path) -> None:
    folder = tmp_path / "data" / "OxfordFlower"
    for name, each in (("train", 2), ("val", 1), ("test", 1)):
        listed = lines(folder, name, 102, each)
        pairs = (line.rpartition(" ") for line in listed.splitlines())
        (folder / f"{name}.json").write_text(
            json.dumps({p: int(label) + 7 for p, _, label in pairs})
        )
    rules = {"protocol.resize_to": 18}
    board = run(checkpoint, folder.parent, "fgvc", tasks=["oxford_flowers"], settings=rules)
    assert board.ranking == "mean of tasks" and board.protocol["optimizer"] == "sgd"


def test_domain_generalisation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 8 classes instead of 1,000: one training, seven test sets, A and R among their own."""
    root, suite = tmp_path / "data", domain_generalisation.SUITE
    (source,) = suite.tasks
    small = replace(source, classes=8, sizes={**source.sizes, "train": 128})
    monkeypatch.setattr(domain_generalisation, "SUITE", replace(suite, tasks=(small,)))
    notes = root / "imagenet" / "annotations"
    notes.mkdir(parents=True)
    listed = lines(root / "imagenet" / "train", "n", 8, 16)
    (notes / "train_meta.list.num_shot_16.seed_0").write_text(listed)
    (notes / "val_meta.list").write_text(lines(root / "imagenet" / "val", "v", 8, 2))
    names = ("red", "green", "blue", "grey", "pink", "brown", "white", "black")
    (root / "imagenet" / "classes.txt").write_text("\n".join(names))
    for folder in ("imagenetv2", "imagenet-sketch", "imagenet-adversarial", "imagenet-rendition"):
        (root / folder / "annotations").mkdir(parents=True)
        classes = 3 if folder.endswith(("adversarial", "rendition")) else 8
        listed = lines(root / folder, "t", classes, 2)
        (root / folder / "annotations" / "val_meta.list").write_text(listed)
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIGURATION))
    settings = {"protocol.image_size": 32}
    board = run(
        *(Path("random"), root, "domain-generalisation"),
        backbone="clip:./tiny.json",
        methods=["zero_shot", "linear", "lora"],
        settings=settings,
    )
    assert board.ranking == "Targets" and board.records == 3
    assert board.groups["Targets"] == (
        *("imagenetv2", "imagenet-sketch", "imagenet-a", "imagenet-r"),
    )
    assert board.groups["A and R, 1000-way"] == ("imagenet-a-1000way", "imagenet-r-1000way")
    (found,), _ = results.load("results")
    for record in found.records.values():
        values = {name: found["metrics"]["accuracy"] for name, found in record["targets"].items()}
        assert values["imagenet-a"] >= values["imagenet-a-1000way"]  # fewer to confuse it with
        assert record["targets"]["imagenet-a"]["total"] == 6
        panel = panels.of(found)
        assert set(panel.runs) == {0}
        a, wide = (panel.tasks.index(f"imagenet-a{which}") for which in ("", "-1000way"))
        assert panel.tests[a] == panel.tests[wide] != panel.tests[0]
        for name, score in values.items():  # each test's predictions are kept
            arrays = found.predictions(record["key"], name)
            assert arrays is not None
            assert np.mean(arrays["predictions"] == arrays["labels"]) == pytest.approx(score)
    # by hand: the mean of the four targets ranks
    row = board.rows[0]
    four = [row.tasks[name].mean for name in board.groups["Targets"]]  # type: ignore[union-attr]
    assert row.ranking is not None and row.ranking.mean == pytest.approx(sum(four) / 4)


def test_medical(tmp_path: Path, checkpoint: Path) -> None:
    root = tmp_path / "data"
    for label, name in enumerate(("benign", "malignant", "normal")):
        for number in range(20):
            picture(root / "busi" / name / f"{name} ({number}).png", label, number)
    tasks = ["busi@6.25", "busi@100"]
    board = run(
        checkpoint, root, "medical", tasks=tasks, seeds=2, settings={"protocol.batch_size": 3}
    )
    assert set(board.groups) == {"6.25 %", "100 %"}
    assert {"balanced_accuracy", "macro_f1", "auroc"} <= board.rows[0].metrics.keys()
    assert board.protocol["head_learning_rate"] == 1e-4
    records = Store("results/medical").load()[0]
    folds = {r["spec"]["seed"]: r["data"]["train"] for r in records if "6.25" in r["spec"]["task"]}
    assert len(set(folds.values())) == 2 and len({r["data"]["test"] for r in records}) == 1


@pytest.mark.parametrize("form", ["folders", "table"])
def test_own_images(tmp_path: Path, checkpoint: Path, form: str) -> None:
    root = tmp_path / "my images"
    rows = ["path,label,group"]
    for label, name in enumerate(("cat", "dog")):
        for number in range(12):
            picture(root / name / f"{number}.png", label, number)
            rows.append(f"my images/{name}/{number}.png,{name},{name} {number // 2}")
    (tmp_path / "images.csv").write_text("\n".join(rows))
    rules = {"protocol.epochs": 30, "protocol.learning_rate": 0.01}
    data = root if form == "folders" else tmp_path / "images.csv"
    board = run(checkpoint, data, "folder", settings=rules)
    assert board.tasks == (("my-images",) if form == "folders" else ("images",))
    assert all(row.ranking is not None and row.ranking.mean > 0.5 for row in board.rows)


def test_vtab_1k_from_originals(tmp_path: Path, checkpoint: Path) -> None:
    """Prepared without loss, run, and never ranked together with a copy of second-hand JPEGs."""

    def quiet(what: str, done: int, total: int) -> None:
        pass

    class Source:
        TASKS = ("cifar",)
        TITLE, LICENCE, HOMEPAGE, DOWNLOAD = "Flat colours", "none", "https://example.org", ()
        NEEDS = ("nothing",)

        @staticmethod
        def splits(raw: Path) -> dict[str, list[Example]]:
            return {
                name: [example(name, number) for number in range(count)]
                for name, count in (("train800", 800), ("val200", 200), ("test", 30))
            }

    def example(split: str, number: int) -> Example:
        label = number % 100
        shade = ({"train800": 0, "val200": 20, "test": 40}[split] + number // 100) % 55
        colour = (2 * label + shade % 3, 200 - label, shade)
        return Example(
            key=f"{split} {number}",
            labels={"cifar": label},
            read=lambda: Image.new("RGB", (8, 8), colour),
            origin=f"{split}, {number}",
        )

    (cifar,) = task.load_suite("vtab-1k").select(["cifar"])
    small = replace(cifar, sizes={**cifar.sizes, "test": 30})
    root = tmp_path / "lossless"
    outcome = originals.prepare([small], {"flat": Source()}, tmp_path, root, progress=quiet)  # type: ignore[dict-item]
    assert outcome.failed == {}
    board = run(checkpoint, root, "vtab-1k", tasks=["cifar"])
    (first, _) = Store("results/vtab-1k").load()[0]
    assert first["spec"]["lineage"] == "lossless" and "manifest" in first["spec"]["members"]

    jpeg = tmp_path / "jpeg" / "cifar"
    for name in ("train800", "val200", "train800val200", "test"):
        listed = []
        for index, line in enumerate((root / "cifar" / f"{name}.txt").read_text().splitlines()):
            path, _, label = line.rpartition(" ")
            file = jpeg / "images" / name / f"{index:06d}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.open(root / "cifar" / path).save(file)
            listed.append(f"{file.relative_to(jpeg)} {label}\n")
        (jpeg / f"{name}.txt").write_text("".join(listed))
    other = run(checkpoint, jpeg.parent, "vtab-1k", tasks=["cifar"], results="results/jpeg")
    assert other.fingerprint != board.fingerprint
    (record, _) = Store("results/jpeg").load()[0]
    assert record["spec"]["lineage"] == "noah-jpeg" and "manifest" not in record["spec"]["members"]


def test_mini_retrieval(tmp_path: Path) -> None:
    """The embedded two-tower model, on the embedded captions."""
    result = petlbench.run(
        suite="mini-retrieval",
        tasks=["scene_captions"],
        methods=["zero_shot", "linear"],
        settings={"protocol.epochs": 2},
        jobs=1,
        device="cpu",
    )
    assert result.failed == 0
    scores = result.frame().set_index("method")["mean_of_tasks"]
    assert scores["linear"] > scores["zero_shot"] > 3 * 0.018  # chance is 1.8 %
