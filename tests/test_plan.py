"""A request becomes a list of runs, or one message about everything that is wrong with it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import petlbench
from petlbench import api, estimate, plan, speed
from petlbench.errors import UsageError
from petlbench.request import Request
from petlbench.store import Store


def make(**request: Any) -> plan.Plan:
    """The plan of a request on the embedded suite, at 16 px and from random weights."""
    settings = {"protocol.image_size": 16} | dict(request.pop("settings", {}))
    return plan.make(
        Request(**{"checkpoint": "random", "device": "cpu", **request}, settings=settings)
    )


def refusal(**request: Any) -> str:
    with pytest.raises(UsageError) as raised:
        make(**request)
    return str(raised.value)


def test_runs_are_expanded_seed_by_seed() -> None:
    made = make(tasks=["scene_count", "digits"], methods=["lora", "linear"], seeds=2)
    order = [(spec.seed, spec.task, spec.method.name) for spec in made.specs]
    assert order == [
        (seed, task, method)
        for seed in (0, 1)
        for task in ("digits", "scene_count")  # the suite's order
        for method in ("lora", "linear")
    ]
    assert made.todo == made.specs and made.failed == 0
    assert len({spec.key for spec in made.specs}) == 8
    assert len({spec.fingerprint for spec in made.specs}) == 1
    assert made.sizes == {"digits": (400, 500), "scene_count": (400, 500)}


def test_seeds_come_from_the_protocol_unless_given() -> None:
    assert len(make(tasks=["digits"], methods=["linear"]).specs) == 1
    settings = {"protocol.seeds": "3"}
    assert len(make(tasks=["digits"], methods=["linear"], settings=settings).specs) == 3
    assert len(make(tasks=["digits"], methods=["linear"], settings=settings, seeds=2).specs) == 2


def test_more_seeds_keep_the_first_ones() -> None:
    one = make(tasks=["digits"], methods=["linear"], seeds=1)
    three = make(tasks=["digits"], methods=["linear"], seeds=3)
    assert three.specs[0].key == one.specs[0].key
    assert three.specs[0].fingerprint == one.specs[0].fingerprint


def test_what_does_not_matter_is_not_in_the_key(tmp_path: Path) -> None:
    key = make(tasks=["digits"], methods=["linear"]).specs[0].key
    for changes in (
        {"jobs": 2, "threads": 3},
        {"keep": "none"},
        {"results": "elsewhere"},
        {"data_root": str(tmp_path)},
        {"tasks": ["digits", "scene_count"]},
        {"methods": ["linear", "lora"]},
    ):
        assert key in {
            s.key for s in make(**{"tasks": ["digits"], "methods": ["linear"], **changes}).specs
        }


def test_the_same_image_size_as_default_is_the_same_run() -> None:
    first = plan.make(Request(tasks=["digits"], checkpoint="random", device="cpu"))
    settings = {"protocol.image_size": "48", "protocol.normalisation": "half"}
    second = plan.make(replace(first.request, settings=settings))
    assert [s.key for s in first.specs] == [s.key for s in second.specs]


def test_what_is_recorded_is_not_to_do(small: dict[str, Any]) -> None:
    api.run(**small)
    made = plan.make(Request(**small | {"methods": ["linear", "lora"]}))
    assert [spec.method.name for spec in made.todo] == ["lora"]
    made = plan.make(Request(**small | {"seeds": 2}))
    assert len(made.done) == len(made.todo) == 1
    seconds, source = estimate.wall_seconds(made)
    record = made.store.read(made.done[0].key)
    assert record is not None
    spent = sum(record[f"{part}_seconds"] for part in ("setup", "train", "test"))
    assert seconds == pytest.approx(spent + speed.startup())  # remembered
    assert source == "1 recorded run"
    whole = plan.make(Request(**small))
    assert whole.todo == [] and estimate.wall_seconds(whole) == (0.0, "")
    assert whole.workers() == (1, 1)


def test_failed_runs_are_to_do(small: dict[str, Any]) -> None:
    made = plan.make(Request(**small))
    made.store.require_writable()
    (made.store.failed / f"{made.specs[0].key}.json").write_text("{}")
    made = plan.make(Request(**small))
    assert (len(made.todo), made.failed) == (1, 1)


def test_planning_writes_nothing(tmp_path: Path, small: dict[str, Any]) -> None:
    plan.make(Request(**small))
    assert not list(tmp_path.iterdir())


# Arguments


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"methods": ["convpas"]}, "unknown method 'convpas'. Did you mean convpass"),
        ({"methods": []}, "no methods given: --methods convpass,lora"),
        ({"methods": ["lora", "lora"]}, "method lora is given twice."),
        ({"methods": [{"rank": 4}]}, "a method table needs a name: {'rank': 4}"),
        ({"methods": [{"name": 3}]}, "a method table needs a name"),
        ({"methods": [3]}, "3"),
        ({"methods": [{"name": "lora", "rank": 0}]}, "lora.rank = 0 is out of range"),
        ({"methods": [{"name": "lora", "rank": "4"}]}, "lora.rank = '4' must be of type int."),
        ({"methods": [{"name": "lora", "rnk": 4}]}, "unknown setting of lora 'rnk'"),
        ({"tasks": ["digit"]}, "unknown task of suite mini 'digit'. Did you mean digits?"),
        ({"tasks": []}, "no tasks"),
        ({"tasks": [3]}, "3"),
        ({"suite": "minni"}, "unknown suite 'minni'. Did you mean mini?"),
        ({"protocol": "vtab"}, "unknown protocol 'vtab'. Did you mean vtab-1k?"),
        ({"backbone": "vit_tiny"}, "unknown backbone 'vit_tiny'. Did you mean"),
        ({"device": "gpu"}, "cuda"),
        ({"keep": "some"}, "predictions"),
        ({"seeds": 0}, "seeds = 0 must be a whole number of at least 1."),
        ({"jobs": -1}, "jobs = -1 must be a whole number of at least 1."),
        ({"threads": 1.5}, "threads = 1.5 must be a whole number of at least 1."),
        ({"seeds": True}, "seeds = True must be a whole number"),
        ({"settings": {"lora.rank": "big"}}, "lora.rank = 'big' must be a value of type int."),
        ({"settings": {"lora.rank": "0"}}, "lora.rank = 0 is out of range"),
        ({"settings": {"vpt.tokens": 1}}, "unknown name in --set 'vpt'. Known: lora, protocol."),
        ({"settings": {"lorra.rank": 1}}, "unknown name in --set 'lorra'. Did you mean lora?"),
        ({"settings": {"rank": 1}}, "unknown name in --set 'rank'"),
        ({"settings": {"protocol.epoch": 1}}, "unknown setting of protocol 'epoch'. Did you mean"),
        ({"settings": {"protocol.epochs": "x"}}, "protocol.epochs = 'x' must be a value of type"),
        ({"settings": {"protocol.image_size": 20}}, "--image-size 20 is not a multiple of the pa"),
        ({"settings": {"protocol.train_split": "half"}}, "suite mini has no split 'half'"),
        ({"settings": {"protocol.precision": "fp16"}}, "protocol.precision = 'fp16' is not allow"),
        (
            {"suite": "vtab-1k", "backbone": "vit_mini"},
            "give --data-root DIR or set PETLBENCH_DATA",
        ),
    ],
)
def test_bad_requests_are_refused(request_: dict[str, Any], message: str) -> None:
    assert message in refusal(**{"methods": ["lora"], **request_})


@pytest.mark.parametrize("name", ["methods", "tasks"])
def test_a_single_name_instead_of_a_list_is_understood_or_refused(name: str) -> None:
    """A string is a sequence too: of letters."""
    value = {"methods": "linear", "tasks": "digits"}[name]
    try:
        made = make(**{"methods": ["linear"], "tasks": ["digits"], name: value})
    except UsageError as error:
        assert value in str(error)
    else:
        assert len(made.specs) == 1


def test_settings_of_methods_and_protocol() -> None:
    settings = {"lora.rank": "4", "protocol.epochs": "5", "protocol.drop_last": "false"}
    made = make(tasks=["digits"], methods=["lora", "linear"], settings=settings)
    assert made.specs[0].method.config["rank"] == 4
    assert made.specs[0].method.label == "lora(rank=4)"
    assert made.specs[1].method.label == "linear"
    assert made.specs[0].rules["epochs"] == 5 and made.specs[0].rules["drop_last"] is False


def test_one_method_with_several_settings() -> None:
    methods = [{"name": "lora", "rank": 2}, {"name": "lora", "rank": 4}, "lora"]
    made = make(tasks=["digits"], methods=methods)
    assert [s.method.label for s in made.specs] == ["lora(rank=2)", "lora(rank=4)", "lora"]


def test_settings_of_a_method_given_as_a_file(tmp_path: Path) -> None:
    built_in = plan.method.builtin()["lora"].read_text()
    (tmp_path / "mine.py").write_text(built_in)
    made = make(tasks=["digits"], methods=["./mine.py"], settings={"mine.rank": "3"})
    assert made.specs[0].method.label == "mine(rank=3)"


def test_ones_own_file_against_a_built_in_of_the_same_name(tmp_path: Path) -> None:
    """Either both run, told apart, or the message says that it is the name that clashes."""
    (tmp_path / "lora.py").write_text(plan.method.builtin()["lora"].read_text())
    try:
        made = make(tasks=["digits"], methods=["lora", "./lora.py"])
    except UsageError as error:
        assert "lora.py" in str(error)
    else:
        assert len({spec.key for spec in made.specs}) == 2


# Devices


def test_the_device_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    for cuda, mps, expected in [(0, 0, "cpu"), (1, 0, "cuda"), (0, 1, "cpu"), (1, 1, "cuda")]:
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: bool(cuda))
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: bool(mps))
        assert plan._device("auto") == expected
        assert plan._device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="--device cuda: PyTorch finds no such device here"):
        plan._device("cuda")


@pytest.mark.parametrize("native", [False, True])
def test_precision_is_resolved(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    monkeypatch.setattr(speed, "bf16_pays", lambda device: native)
    for given, expected in (
        ("auto", "bf16" if native else "fp32"),
        ("fp32", "fp32"),
        ("bf16", "bf16"),
    ):
        made = make(tasks=["digits"], methods=["linear"], settings={"protocol.precision": given})
        assert made.specs[0].rules["precision"] == expected


def test_normalisation_is_recorded_by_value() -> None:
    rules = make(tasks=["digits"], methods=["linear"]).specs[0].rules
    assert (rules["mean"], rules["std"]) == ([0.5] * 3, [0.5] * 3)
    assert "normalisation" not in rules


def planned(count: int, **request: Any) -> plan.Plan:
    made = make(tasks=["digits"], methods=["linear"], seeds=count)
    return replace(made, request=replace(made.request, **request))


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="Linux only")
@pytest.mark.parametrize(
    ("cores", "todo", "request_", "fit", "expected"),
    [
        (8, 20, {}, 99, (4, 2)),
        (2, 20, {}, 99, (2, 1)),
        (8, 2, {}, 99, (2, 4)),
        (8, 20, {}, 1, (1, 8)),
        (8, 20, {}, 0, (1, 8)),
        (8, 20, {"jobs": 3}, 1, (3, 2)),
        (2, 20, {"jobs": 5}, 99, (5, 1)),
        (8, 20, {"jobs": 2, "threads": 3}, 99, (2, 3)),
        (8, 20, {"threads": 1}, 99, (4, 1)),
    ],
)
def test_workers_share_the_cores(
    monkeypatch: pytest.MonkeyPatch,
    cores: int,
    todo: int,
    request_: dict[str, int],
    fit: int,
    expected: tuple[int, int],
) -> None:
    made = planned(todo, **request_)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    monkeypatch.setattr(plan, "_fit", lambda *_: fit)
    assert made.workers() == expected


@pytest.mark.parametrize(
    ("measured", "fit", "expected"), [(1, 99, 3), (4, 99, 12), (4, 2, 6), (2, 0, 3)]
)
def test_workers_share_the_gpus(
    monkeypatch: pytest.MonkeyPatch, measured: int, fit: int, expected: int
) -> None:
    made = replace(planned(20), device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    memory = SimpleNamespace(total_memory=80 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: memory)
    monkeypatch.setattr(speed, "runs_per_gpu", lambda *_: measured)
    monkeypatch.setattr(plan, "_fit", lambda *_: fit)
    assert made.workers()[0] == expected
    assert replace(made, device="mps").workers()[0] == 1


# Datasets


def test_all_that_is_missing_is_listed_at_once(vtab_root: Path) -> None:
    (vtab_root / "dtd" / "test.txt").unlink()
    (vtab_root / "svhn").mkdir()
    request = {"suite": "vtab-1k", "backbone": "vit_mini", "data_root": str(vtab_root)}
    told = refusal(**request, tasks=["cifar", "dtd", "svhn", "kitti"])
    assert told.splitlines() == [
        "3 of 4 tasks of vtab-1k cannot be read:",
        f"  dtd: no list file {vtab_root / 'dtd' / 'test.txt'}",
        f"  svhn: no list file {vtab_root / 'svhn' / 'train800val200.txt'}",
        f"  kitti: no folder {vtab_root / 'kitti'}",
        "Run what is there: --tasks cifar",
    ]
    assert len(refusal(**request).splitlines()) <= 25  # all 19 tasks


def test_half_prepared_lists_are_named(vtab_root: Path) -> None:
    lists = vtab_root / "cifar" / "train800val200.txt"
    lists.write_text("".join(lists.read_text().splitlines(keepends=True)[:900]))
    told = refusal(suite="vtab-1k", backbone="vit_mini", data_root=str(vtab_root), tasks=["cifar"])
    assert f"{lists} lists 900 images; 1000 are expected." in told


def test_the_data_root_may_come_from_the_environment(
    vtab_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PETLBENCH_DATA", str(vtab_root))
    made = make(suite="vtab-1k", backbone="vit_mini", tasks=["cifar100"], methods=["linear"])
    assert [spec.task for spec in made.specs] == ["cifar"] * 3
    assert made.sizes == {"cifar": (1000, 40)}
    other = make(
        suite="vtab-1k", backbone="vit_mini", tasks=["cifar"], methods=["linear"],
        data_root=str(vtab_root / "..") + "/vtab-1k",
    )  # fmt: skip
    assert other.specs == made.specs  # where the images lie is no part of a run


def test_a_changed_list_is_another_run(vtab_root: Path) -> None:
    request = {"suite": "vtab-1k", "backbone": "vit_mini", "tasks": ["cifar"], "seeds": 1}
    first = make(**request, methods=["linear"], data_root=str(vtab_root)).specs[0]
    lists = vtab_root / "cifar" / "test.txt"
    lists.write_text(lists.read_text().replace(" 9\n", " 8\n"))
    second = make(**request, methods=["linear"], data_root=str(vtab_root)).specs[0]
    assert first.key != second.key and first.fingerprint == second.fingerprint


def test_a_damaged_record_is_run_again(small: dict[str, Any]) -> None:
    result = api.run(**small)
    (file,) = (result.folder / "records").glob("*.json")
    file.write_text(file.read_text()[:100])
    assert len(plan.make(Request(**small)).todo) == 1
    api.run(**small)
    assert Store(result.folder).load()[1] == []


def test_crops_that_cannot_be_are_refused_before_anything_runs() -> None:
    told = refusal(settings={"protocol.resize_to": 12})
    assert "resize_to" in told and "image_size" in told
    assert "must be larger" in refusal(settings={"protocol.augmentation": "crop-flip"})


def test_images_that_changed_since_they_were_recorded(
    small: dict[str, Any], tmp_path: Path
) -> None:
    """Told before training, and not by a leaderboard that has two records of one run."""
    from PIL import Image

    for name, colour in (("cat", (200, 0, 0)), ("dog", (0, 0, 200))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (8, 8), colour).save(tmp_path / "pets" / name / f"{number}.png")
    request = small | {"suite": "folder", "tasks": None, "data_root": str(tmp_path / "pets")}
    request |= {"backbone": "vit_mini", "seeds": 1}
    first = petlbench.run(**request)
    Image.new("RGB", (8, 8)).save(tmp_path / "pets" / "cat" / "more.png")
    again = petlbench.run(**request)  # other images, another comparison
    assert first.board and again.board and first.board.fingerprint != again.board.fingerprint
    assert (again.failed, len(again.board.rows)) == (0, 1)

    lists = tmp_path / "vtab" / "cifar"
    (lists / "images").mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(lists / "images" / "a.png")
    for name, count in (("train800val200", 1000), ("test", 4)):
        (lists / f"{name}.txt").write_text("images/a.png 0\n" * count)
    request = small | {"suite": "vtab-1k", "tasks": ["cifar"], "data_root": str(lists.parent)}
    request |= {"backbone": "vit_mini", "seeds": 1, "results": "results/vtab"}
    petlbench.run(**request)
    (lists / "test.txt").write_text("images/a.png 0\n" * 5)
    with pytest.raises(UsageError, match="the images of cifar, or the lists of them"):
        petlbench.run(**request)
