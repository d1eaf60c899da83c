"""The test firewall: before training is over nothing reads test images, and reads are counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import petlbench
from petlbench import api, plan
from petlbench.data.vault import Peeked, Vault
from petlbench.request import Request
from petlbench.store import Store
from petlbench.task import load_suite

SPY = """
from dataclasses import dataclass
from pathlib import Path

from petlbench.backbone import Backbone, Shape
from petlbench.method import Batches, Method


@dataclass(frozen=True)
class Spy(Method):
    when: str = "attach"
    file: str = ""

    def look(self, when: str) -> None:
        if when == self.when:
            for file in sorted(Path(self.file).parent.glob(Path(self.file).name)):
                file.read_bytes()

    def attach(self, backbone: Backbone) -> None:
        self.look("attach")

    def calibrate(self, backbone: Backbone, batches: Batches) -> None:
        self.look("calibrate")

    def num_trainable(self, shape: Shape) -> int:
        return 0
"""


@pytest.fixture
def task(tmp_path: Path, make_task: Any) -> Path:
    """Training and test images in files of their own."""
    folder: Path = make_task(tmp_path / "data", "cifar")
    for line in sorted(set((folder / "test.txt").read_text().splitlines())):
        path = line.rpartition(" ")[0]
        (folder / "images" / f"test {Path(path).name}").write_bytes((folder / path).read_bytes())
    text = (folder / "test.txt").read_text()
    (folder / "test.txt").write_text(text.replace("images/", "images/test "))
    return folder


def arguments(small: dict[str, Any], task: Path, **changes: Any) -> dict[str, Any]:
    request = small | {"suite": "vtab-1k", "tasks": ["cifar"], "data_root": str(task.parent)}
    return request | {"backbone": "vit_mini", "seeds": 1, **changes}


def spy(small: dict[str, Any], task: Path, when: str, file: Path) -> Any:
    Path("spy.py").write_text(SPY)
    settings = small["settings"] | {"spy.when": when, "spy.file": str(file)}
    return petlbench.run(
        **arguments(small, task, methods=["./spy.py"], settings=settings, results="results/spy")
    )


def errors(folder: str) -> list[str]:
    return [r["error"]["message"] for r in Store(folder).load()[0] if r["status"] == "failed"]


@pytest.mark.parametrize("when", ["attach", "calibrate"])
def test_a_method_cannot_open_a_test_image(small: dict[str, Any], task: Path, when: str) -> None:
    assert spy(small, task, when, task / "images" / "test 00 of 20.png").failed == 1
    assert "belongs to the test split" in errors("results/spy")[0]


def test_a_method_can_open_a_training_image(small: dict[str, Any], task: Path) -> None:
    assert spy(small, task, "attach", task / "images" / "00 of 20.png").failed == 0


def test_a_method_cannot_open_what_the_cache_made_of_test_images(
    small: dict[str, Any], task: Path, tmp_path: Path
) -> None:
    assert petlbench.run(**arguments(small, task)).failed == 0  # fills the cache
    assert len(list((tmp_path / "cache").glob("*.npy"))) >= 2
    assert spy(small, task, "attach", tmp_path / "cache" / "*.npy").failed == 1
    assert "belongs to the test split" in errors("results/spy")[0]


def test_test_images_are_read_once_and_after_training(small: dict[str, Any], task: Path) -> None:
    made = plan.make(Request(**arguments(small, task)))
    spec, suite = made.specs[0], load_suite("vtab-1k")
    vault = Vault(spec, suite, suite.select(["cifar"])[0], task.parent)
    training = vault.training()
    image = task / "images" / "test 00 of 20.png"
    with vault.seal(training):
        with pytest.raises(Peeked, match="before training was over"):
            vault.test()
        with pytest.raises(Peeked):
            image.read_bytes()
        with vault.opened():
            assert len(vault.test()) == 40
        with pytest.raises(Peeked):
            image.read_bytes()
    assert image.read_bytes()
    api.execute(made)
    assert Store(made.store.folder).load()[0][0]["test_reads"] == 1


def test_files_that_are_also_for_training_stay_open(small: dict[str, Any], vtab_root: Path) -> None:
    request = small | {"suite": "vtab-1k", "tasks": ["cifar"], "data_root": str(vtab_root)}
    made = plan.make(Request(**request | {"backbone": "vit_mini", "seeds": 1}))
    suite = load_suite("vtab-1k")
    vault = Vault(made.specs[0], suite, suite.select(["cifar"])[0], vtab_root)
    with vault.seal(vault.training()):
        assert (vtab_root / "cifar" / "images" / "00 of 20.png").read_bytes()


def test_images_on_both_sides_are_counted(small: dict[str, Any], vtab_root: Path) -> None:
    request = small | {"suite": "vtab-1k", "tasks": ["cifar"], "data_root": str(vtab_root)}
    petlbench.run(**request | {"backbone": "vit_mini", "seeds": 1})
    (record,) = Store("results/small").load()[0]
    assert record["data"]["test_images_in_training"] == record["test"]["total"] == 40


def test_a_look_at_the_test_curve_changes_nothing(small: dict[str, Any]) -> None:
    settings = small["settings"] | {"protocol.epochs": 4, "protocol.drop_path": 0.2}
    request = small | {"settings": settings, "methods": ["lora"]}
    petlbench.run(**request | {"results": "results/plain"})
    petlbench.run(**request | {"results": "results/peeked", "report_peek": True})
    plain, peeked = (Store(f"results/{name}").load()[0][0] for name in ("plain", "peeked"))
    assert plain["key"] == peeked["key"] and plain["train_loss"] == peeked["train_loss"]
    assert plain["test"] == peeked["test"] and "peek" not in plain
    assert (plain["test_reads"], peeked["test_reads"]) == (1, 4)
    peek = peeked["peek"]
    assert [look["epoch"] for look in peek["curve"]] == [1, 2, 3, 4]
    assert peek["curve"][-1]["accuracy"] == peeked["test"]["metrics"]["accuracy"]
    assert peek["best"] == max(look["accuracy"] for look in peek["curve"])


def test_a_run_without_the_curve_is_run_again_where_it_is_asked_for(small: dict[str, Any]) -> None:
    petlbench.run(**small)
    assert plan.make(Request(**small)).todo == []
    made = plan.make(Request(**small, report_peek=True))
    assert len(made.todo) == 1
    api.execute(made)
    assert plan.make(Request(**small, report_peek=True)).todo == []
