"""A search: one budget for all, replayed bit for bit, and blind to test images."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import CLI
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

import petlbench
from petlbench import adapted, estimate, experiment, plan, protocol, search
from petlbench.data import cache, vault
from petlbench.errors import UsageError
from petlbench.experiment import Machine
from petlbench.method import MethodSpec
from petlbench.request import Request
from petlbench.results import folders
from petlbench.spec import RunSpec
from petlbench.store import Record, Store
from petlbench.suites import mini
from petlbench.task import Target
from petlbench.weights import BackboneSpec

GEOMETRY = cache.Geometry(16, "bicubic")
TIMES = ("started", "environment", "setup_seconds", "train_seconds", "test_seconds", "peak_bytes")


def records(folder: str = "results/small") -> dict[str, list[Record]]:
    """Method's label -> its records, by seed."""
    found: dict[str, list[Record]] = {}
    for record in sorted(Store(folder).load()[0], key=lambda r: r["spec"]["seed"]):
        found.setdefault(record["spec"]["method"]["label"], []).append(record)
    return found


def timeless(record: Record) -> Record:
    """Without what no two runs have in common."""
    kept = {name: value for name, value in record.items() if name not in TIMES}
    if "search" in kept:
        trials = [{**told, "seconds": None} for told in record["search"]["trials"]]
        kept["search"] = record["search"] | {"trials": trials}
    return kept


def made(small: dict[str, Any], **changes: Any) -> plan.Plan:
    return plan.make(Request(**{**small, "search": 3, **changes}))


def counted(monkeypatch: pytest.MonkeyPatch, stop: int = 0) -> list[RunSpec]:
    """What is measured from now on; Ctrl-C at the start of number `stop`."""
    specs: list[RunSpec] = []
    measure = experiment.measure

    def spy(spec: RunSpec, machine: Machine, on_progress: Any) -> Any:
        specs.append(spec)
        if len(specs) == stop:
            raise KeyboardInterrupt
        return measure(spec, machine, on_progress)

    monkeypatch.setattr(experiment, "measure", spy)
    return specs


# What a search is


def test_every_method_has_the_same_number_of_trials(small: dict[str, Any]) -> None:
    methods = ["linear", "full", "convpass"]
    assert petlbench.run(**small | {"methods": methods}, search=3).failed == 0
    found = records()
    assert set(found) == set(methods)
    stored = {file.stem for file in Path("results/small/trials").glob("*.json")}
    assert len(stored) == 9
    for name, (record,) in found.items():
        told = record["search"]
        assert len(told["trials"]) == 3
        assert {trial["key"] for trial in told["trials"]} <= stored
        first = told["trials"][0]  # the row without a search
        rules = record["spec"]["protocol"]
        assert (first["config"], first["learning_rate"], first["weight_decay"]) == (
            {},
            rules["learning_rate"],
            rules["weight_decay"],
        )
        assert (told["train_split"], told["val_split"]) == ("train", "val")
        assert (told["metric"], told["sampler"]) == ("accuracy", "random")
        assert record["spec"]["search"]["trials"] == 3 and "search" not in record["tuned"]
        best = max(trial["value"] for trial in told["trials"])
        assert told["trials"][told["winner"]]["value"] == best
        for trial in told["trials"]:
            kept = Store("results/small").read_trial(trial["key"])
            assert kept is not None and kept["data"]["train"] != record["data"]["train"]
            assert kept["test"]["total"] == 100 and kept["spec"]["seed"] == 0
            assert set(trial["config"]) <= ({"scale", "init"} if name == "convpass" else set())
    assert len({record["fingerprint"] for (record,) in found.values()}) == 1


def test_the_result_is_that_of_the_winners_settings(small: dict[str, Any]) -> None:
    petlbench.run(**small | {"methods": ["convpass"]}, search=3)
    ((record,),) = records().values()
    winner = record["search"]["trials"][record["search"]["winner"]]
    settings = {f"convpass.{name}": value for name, value in winner["config"].items()}
    settings |= {f"protocol.{name}": winner[name] for name in search.RULES}
    request = small | {"methods": ["convpass"], "settings": small["settings"] | settings}
    petlbench.run(**request | {"results": "plain"})
    ((plain,),) = records("plain").values()
    for name in ("test", "train_loss", "parameters", "data"):
        assert record[name] == plain[name]
    assert {**record["tuned"], "method": None} == {**plain["spec"], "method": None}
    assert record["tuned"]["method"]["config"] == plain["spec"]["method"]["config"]
    assert record["key"] != plain["key"] and record["fingerprint"] != plain["fingerprint"]


def test_seeds_share_the_trials(small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    measured = counted(monkeypatch)
    petlbench.run(**small, search=3, seeds=2)
    assert [spec.seed for spec in measured] == [0, 0, 0, 0, 1]
    ((first, second),) = records().values()
    assert first["search"] == second["search"]
    assert first["train_loss"] != second["train_loss"]
    # a larger budget has them too
    petlbench.run(**small, search=4)
    assert len(measured) == 7
    assert records()["linear"][1]["search"]["trials"][:3] == first["search"]["trials"]


def test_trials_are_of_seed_0_whatever_list_a_seed_trains_on(small: dict[str, Any]) -> None:
    (spec,) = made(small).specs
    other = replace(spec, seed=2, members=spec.members | {"trainval": "another list"})
    default = {"config": {}, "learning_rate": 1e-3, "weight_decay": 0.1}
    trial = search.trial(spec, default)
    assert trial.key == search.trial(other, default).key
    assert (trial.seed, trial.search) == (0, None)
    assert trial.sealed_splits == ("test",)
    assert set(trial.members) == {"train", "val", "test"}
    assert not set(protocol.SEARCH) & set(trial.rules)


def test_two_workers_make_each_trial_once(small: dict[str, Any]) -> None:
    petlbench.run(**small | {"seeds": 2, "jobs": 2}, search=2)
    one, two = records()["linear"]
    assert one["search"] == two["search"]  # seconds included: neither seed made them again


# Interrupted


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_goes_on_where_it_stopped(small: dict[str, Any], sampler: str) -> None:
    request = small | {"methods": ["lora"], "search": 6, "sampler": sampler}
    petlbench.run(**request)
    ((whole,),) = records().values()
    kept = {told["key"] for told in whole["search"]["trials"][:4]}
    Path("again/trials").mkdir(parents=True)
    for key in kept:
        shutil.copy(f"results/small/trials/{key}.json", "again/trials")
    petlbench.run(**request | {"results": "again"})
    ((resumed,),) = records("again").values()
    assert timeless(resumed) == timeless(whole)
    assert whole["search"]["sampler"] == sampler
    assert len({told["key"] for told in whole["search"]["trials"]}) > 3  # it does try


def test_ctrl_c_loses_the_trial_in_flight(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        counted(patch, stop=3)
        with pytest.raises(KeyboardInterrupt):
            petlbench.run(**small, search=4)
    assert len(list(Path("results/small/trials").glob("*.json"))) == 2
    assert made(small, search=4).trials == {made(small, search=4).specs[0].key: 2}
    measured = counted(monkeypatch)
    petlbench.run(**small, search=4)
    assert len(measured) == 3  # two trials, and the run
    petlbench.run(**small | {"results": "whole"}, search=4)
    ((resumed,),), ((whole,),) = records().values(), records("whole").values()
    assert timeless(resumed) == timeless(whole)


def test_progress_says_which_trial_it_is(small: dict[str, Any]) -> None:
    from petlbench import progress

    found = made(small, search=2)
    found.store.require_writable()
    messages: list[str] = []
    experiment.run(found.specs[0], found.store, Machine(), messages.append)
    assert [m.split()[:3] for m in messages if "epoch" in m] == [
        ["trial", "1/2", "epoch"],
        ["trial", "2/2", "epoch"],
        ["epoch", "1/1", "loss"],
    ]
    reporter = progress.Reporter(found.store.claims / "x.progress", "linear on digits")
    reporter(next(m for m in messages if m.startswith("trial 2/2 epoch")))
    assert progress._read(found.store.claims, 0)["x.progress"][1:] == (2, 2)  # what a bar shows


def test_trials_are_no_results_of_their_own(small: dict[str, Any]) -> None:
    petlbench.run(**small, search=2)
    assert folders("results") == [Path("results/small")]
    assert len(Store("results/small").load()[0]) == 1
    assert len(petlbench.load_results("results")) == 1


# Test images


def test_a_trial_reads_no_test_images(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those of further test splits either, nor for the curve of --report-peek."""
    task = replace(mini.SUITE.tasks[0], targets=(Target("shifted", "Other", "test"),))
    suite = replace(mini.SUITE, tasks=(task,))
    monkeypatch.setattr(mini, "SUITE", suite)
    read: list[str] = []
    reading = vault.Vault._read

    def spy(self: vault.Vault, name: str) -> vault.Data:
        read.append(name)
        return reading(self, name)

    monkeypatch.setattr(vault.Vault, "_read", spy)
    settings = small["settings"] | {"protocol.epochs": 2}
    request = small | {"settings": settings, "report_peek": True}
    petlbench.run(**request, search=2)
    assert read[:4] == ["train", "val", "train", "val"]
    assert read[4:] == ["trainval", "test", "test", "test"]  # a look, the test, the target
    ((record,),) = records().values()
    assert set(record["targets"]) == {"shifted"} and "peek" in record
    for told in record["search"]["trials"]:
        trial = Store("results/small").read_trial(told["key"])
        assert trial is not None and trial["test_reads"] == 1  # of val
        assert "targets" not in trial and "peek" not in trial


SPY = """
from dataclasses import dataclass
from pathlib import Path

from petlbench.method import Method


@dataclass(frozen=True)
class Spy(Method):
    search = {"file": ()}
    file: str = ""

    def attach(self, backbone):
        if self.file:
            Path(self.file).read_bytes()

    def num_trainable(self, shape):
        return 0
"""


@pytest.fixture
def own_files(tmp_path: Path, make_task: Any) -> Path:
    """A task whose test images are files of their own."""
    folder: Path = make_task(tmp_path / "data", "cifar")
    text = (folder / "test.txt").read_text()
    for file in list((folder / "images").iterdir()):
        shutil.copy(file, file.with_name(f"test {file.name}"))
    (folder / "test.txt").write_text(text.replace("images/", "images/test "))
    return folder


def on_disk(small: dict[str, Any], folder: Path) -> dict[str, Any]:
    request = small | {"suite": "vtab-1k", "tasks": ["cifar"], "data_root": str(folder.parent)}
    return request | {"backbone": "vit_mini", "seeds": 1}


def test_a_trial_that_opens_a_test_image_fails(small: dict[str, Any], own_files: Path) -> None:
    image = own_files / "images" / "test 00 of 20.png"
    Path("spy.py").write_text(SPY.replace('"file": ()', f'"file": ("{image}",)'))
    request = on_disk(small, own_files) | {"methods": ["./spy.py"]}
    assert petlbench.run(**request, search=5).failed == 0
    ((record,),) = records().values()
    peeked = [told for told in record["search"]["trials"] if told["config"]]
    assert 0 < len(peeked) < 5
    for told in peeked:
        assert told["value"] is None and "belongs to the test split" in told["error"]
    assert record["tuned"]["method"]["config"] == {"file": ""}


# Winners


def told(value: float | None, rate: float) -> dict[str, Any]:
    return {"value": value, "learning_rate": rate}


@pytest.mark.parametrize(
    ("trials", "winner"),
    [
        ([told(0.5, 1e-3), told(0.6, 1e-2)], 1),
        ([told(0.5, 1e-2), told(0.5, 1e-3)], 1),  # the smaller learning rate
        ([told(0.5, 1e-3), told(0.5, 1e-3)], 0),  # the earlier one
        ([told(None, 1e-9), told(0.1, 1e-3)], 1),
        ([told(-0.2, 1e-3), told(None, 1e-4)], 0),  # kappa may be negative
        ([told(None, 1e-3)], None),
    ],
)
def test_ties(trials: list[dict[str, Any]], winner: int | None) -> None:
    assert search.winner(trials) == winner


@given(
    st.lists(
        st.builds(told, st.sampled_from([None, 0.0, 0.5, 1.0]), st.sampled_from([1e-3, 1e-2])),
        min_size=1,
    )
)
def test_the_winner_is_beaten_by_none(trials: list[dict[str, Any]]) -> None:
    chosen = search.winner(trials)
    valued = [t for t in trials if t["value"] is not None]
    assert (chosen is None) == (not valued)
    if chosen is not None:
        best = trials[chosen]
        assert best["value"] == max(t["value"] for t in valued)
        equals = [t for t in valued if t["value"] == best["value"]]
        assert best["learning_rate"] == min(t["learning_rate"] for t in equals)
        assert all(t != best for t in trials[:chosen])


def test_a_trial_that_diverges_cannot_win(small: dict[str, Any]) -> None:
    settings = small["settings"] | {"protocol.search_learning_rate": (1e38,)}
    assert petlbench.run(**small | {"settings": settings}, search=4).failed == 0
    ((record,),) = records().values()
    diverged = [t for t in record["search"]["trials"] if t["learning_rate"] == 1e38]
    assert 0 < len(diverged) < 4
    for trial in diverged:
        assert trial["value"] is None and "lower the learning rate" in trial["error"]
        kept = Store("results/small").read_trial(trial["key"])
        assert kept is not None and kept["status"] == "failed" and kept["error"]["traceback"]
    assert record["tuned"]["protocol"]["learning_rate"] == 2e-3


def test_a_run_without_a_winner_fails_and_says_why(small: dict[str, Any], cli: CLI) -> None:
    arguments = ["run", "--search", "2", "--set", "protocol.learning_rate=1e38"]
    done = cli(*arguments, small=True)
    assert done.code == 1, done
    assert "all 2 trials of the search failed" in done.err and "lower the learning rate" in done.err
    (file,) = Path("results/small/failed").glob("*.json")
    ((record,),) = records().values()
    assert record["search"]["winner"] is None and len(record["search"]["trials"]) == 2
    # the next time starts anew: what is wrong may have been outside of the trials
    assert list(Path("results/small/trials").glob("*.json")) == []
    assert record["key"] == file.stem


OWN = """
from dataclasses import dataclass

from petlbench.errors import UsageError
from petlbench.method import Method


@dataclass(frozen=True)
class Picky(Method):
    search = {"size": (0, 1, 2)}
    size: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.size == 2:
            raise UsageError("size 2 does not exist")

    def require(self, shape):
        if self.size == 1:
            raise UsageError("size 1 does not fit")

    def attach(self, backbone):
        pass

    def num_trainable(self, shape):
        return 0
"""


def test_settings_that_do_not_go_together_are_failed_trials(small: dict[str, Any]) -> None:
    Path("picky.py").write_text(OWN)
    assert petlbench.run(**small | {"methods": ["./picky.py"]}, search=8).failed == 0
    ((record,),) = records().values()
    errors = {t["config"].get("size", 0): t.get("error") for t in record["search"]["trials"]}
    assert errors == {0: None, 1: "size 1 does not fit", 2: "size 2 does not exist"}
    assert record["tuned"]["method"]["config"] == {"size": 0}


def test_lack_of_memory_is_no_failure_of_a_trial(
    small: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(*_: Any) -> Any:
        raise torch.OutOfMemoryError("simulated")

    with monkeypatch.context() as patch:
        patch.setattr(experiment, "measure", short)
        assert petlbench.run(**small, search=2).failed == 1
    assert list(Path("results/small/trials").glob("*.json")) == []
    assert petlbench.run(**small, search=2).failed == 0


# Afterwards


def test_a_tuned_model_predicts_what_its_run_predicted(
    small: dict[str, Any], checkpoint: Path
) -> None:
    # the default learns nothing, so that what is stored has the shapes of another rank
    settings = small["settings"] | {"protocol.learning_rate": 1e-9}
    settings |= {"protocol.search_learning_rate": (1e-3,)}
    petlbench.run(**small | {"methods": ["lora"], "settings": settings}, search=4)
    ((record,),) = records().values()
    assert record["tuned"]["method"]["config"] != record["spec"]["method"]["config"]
    images = cache.load(mini.SUITE.open_split(mini.SUITE.tasks[0], "test", None, 0), GEOMETRY)
    with np.load(f"results/small/artifacts/{record['key']}.predictions.npz") as stored:
        expected = stored["predictions"]
    file = f"results/small/artifacts/{record['key']}.safetensors"
    for run in (record, file):
        model = adapted.load_adapted(run, "results", checkpoint)
        predictions = model.logits(torch.from_numpy(images.pixels)).argmax(1).numpy()
        assert np.array_equal(predictions, expected)


# Plans


def test_without_a_search_nothing_is_new(small: dict[str, Any]) -> None:
    assert plan.make(Request(device="cpu")).specs[0].fingerprint == "d611e02ae473"
    (spec,) = plan.make(Request(**small)).specs
    assert spec.search is None and "search" not in spec.as_dict()
    assert not set(protocol.SEARCH) & set(spec.rules)
    assert not [name for name in spec.members if name.startswith(search.PREFIX)]


def test_budgets_and_samplers_are_comparisons_of_their_own(small: dict[str, Any]) -> None:
    plans = [made(small), made(small, search=4), made(small, sampler="tpe")]
    plans.append(plan.make(Request(**small)))
    settings = small["settings"] | {"protocol.search_weight_decay": (0.5,)}
    plans.append(made(small, settings=settings))
    assert len({each.specs[0].fingerprint for each in plans}) == 5
    assert len({each.specs[0].key for each in plans}) == 5
    again = made(small, seeds=2, methods=["lora", "linear"])
    assert plans[0].specs[0].key in {spec.key for spec in again.specs}


def test_what_was_set_is_not_searched(small: dict[str, Any]) -> None:
    def lora(**settings: Any) -> tuple[plan.Plan, dict[str, Any]]:
        request = small | {"methods": ["lora"]}
        found = made(request, settings=small["settings"] | settings)
        assert found.specs[0].search is not None
        return found, found.specs[0].search["space"]

    free, space = lora()
    assert space == {"rank": [1, 4, 8, 16, 32]}
    fixed, space = lora(**{"lora.rank": 8})  # the default, but now it was chosen
    assert space == {}
    assert "search: rank of lora: not searched, set." in fixed.notes
    assert free.specs[0].key != fixed.specs[0].key
    assert free.specs[0].fingerprint == fixed.specs[0].fingerprint
    rate, _ = lora(**{"protocol.learning_rate": 2e-3})  # the same
    assert rate.specs[0].rules["search_learning_rate"] == []
    assert rate.specs[0].fingerprint != free.specs[0].fingerprint
    assert "search: learning_rate of the protocol: not searched, it is set." in rate.notes
    both, _ = lora(**{"protocol.learning_rate": 2e-3, "protocol.search_learning_rate": "0.1,1"})
    assert both.specs[0].rules["search_learning_rate"] == [0.1, 1.0]
    table = made(small, methods=[{"name": "lora", "rank": 4}]).specs[0]
    assert table.search is not None and table.search["space"] == {}


def test_what_a_preset_says_is_not_searched(small: dict[str, Any]) -> None:
    text = 'source = "a test"\nchosen = "at will"\n[mini]\ndigits = { scale = 0.1 }\n'
    Path("convpass.mine.toml").write_text(text)
    found = made(small, methods=["convpass"], presets=["./convpass.mine.toml"])
    (spec,) = found.specs
    assert spec.search is not None and set(spec.search["space"]) == {"init"}
    assert "search: scale of convpass[mine]: not searched, set." in found.notes


def test_the_estimate_has_the_trials(small: dict[str, Any]) -> None:
    from petlbench.speed import Speed

    rate = Speed(setup=1.0, once=0.1, training=0.01, testing=0.001)
    before = made(small, seeds=2)
    first, second = before.specs
    assert before.trials == {first.key: 3}
    assert before.trial_sizes == {"digits": (300, 100)}
    extra = estimate.seconds(before, first, rate) - estimate.seconds(before, second, rate)
    assert extra == pytest.approx(3 * rate.run(300, 1, 100))
    petlbench.run(**small, search=3)
    after = made(small, seeds=2)
    assert [spec.seed for spec in after.todo] == [1]
    assert after.trials == {second.key: 0}
    assert made(small, search=5).trials == {made(small, search=5).specs[0].key: 2}
    assert any(note.startswith("search: 3 trials (random)") for note in after.notes)


def test_a_sketch_has_the_sizes_that_were_published() -> None:
    found = plan.make(Request(suite="vtab-1k", tasks=["cifar"], search=2), sketch=True)
    assert found.trial_sizes == {"cifar": (800, 200)}


# Samplers


def spec_of(task: str = "digits", trials: int = 3) -> RunSpec:
    rules = protocol.load("mini").rules() | {"mean": [0.5] * 3, "std": [0.5] * 3}
    lora = MethodSpec("lora", "lora", None, {"rank": 8, "alpha": 8.0}, "lora")
    return RunSpec(
        suite="mini",
        task=task,
        group="Natural",
        classes=10,
        seed=0,
        method=lora,
        backbone=BackboneSpec("vit_mini", "random", None),
        protocol="mini",
        rules=rules,
        members={"trainval": "a", "test": "b", "search train": "c", "search val": "d"},
        search={"trials": trials, "sampler": "random", "space": {"rank": [1, 8, 64]}},
    )


def drawn(spec: RunSpec) -> list[dict[str, Any]]:
    """What is tried, whatever its value."""
    test = {"metric": "accuracy", "metrics": {"accuracy": 0.5}}
    seconds = {f"{part}_seconds": 1.0 for part in search.PARTS}

    def attempt(trial: RunSpec, name: str) -> Record:
        return {"status": "done", "key": trial.key, "test": test, **seconds}

    return list(search.conduct(spec, attempt)["trials"])


@effort(max_examples=30, deadline=None)
@given(st.text(max_size=8), st.integers(1, 20), st.integers(0, 20))
def test_random_draws_are_from_the_space_and_the_first_stay(task: str, few: int, more: int) -> None:
    trials = drawn(spec_of(task, few))
    assert len(trials) == few
    rules = protocol.load("mini")
    for each in trials:
        assert each["config"].get("rank", 8) in (1, 8, 64)
        assert each["learning_rate"] in rules.search_learning_rate
        assert each["weight_decay"] in rules.search_weight_decay
    assert trials == drawn(spec_of(task, few + more))[:few]


def test_tasks_are_drawn_differently() -> None:
    keys = ("config", "learning_rate", "weight_decay")
    tried = [
        [[trial[key] for key in keys] for trial in drawn(spec_of(task, 8))]
        for task in ("digits", "scene_count")
    ]
    assert tried[0] != tried[1]


def test_nothing_is_drawn_twice_while_there_is_something_else() -> None:
    """Twenty settings of the linear probe: twenty trials try them all, more begin to repeat."""
    space = {
        "protocol.learning_rate": [1.0, 2.0, 3.0, 4.0, 5.0],
        "protocol.weight_decay": [1, 2, 3, 4],
    }
    default = {"protocol.learning_rate": 3.0, "protocol.weight_decay": 2}
    proposals = search._random(space, default, 0, 30)
    found = [tuple(next(proposals).values()) for _ in range(30)]
    assert found[0] == (3.0, 2) and len(set(found[:20])) == len(set(found)) == 20


def test_draws_are_the_same_in_every_version() -> None:
    """Pinned: another draw would orphan the trials of every search that was interrupted."""
    found = [(t["config"], t["learning_rate"], t["weight_decay"]) for t in drawn(spec_of(trials=5))]
    assert found == [
        ({}, 0.002, 0.0001),
        ({"rank": 64}, 0.001, 0.0001),
        ({"rank": 1}, 0.0003, 0.0001),
        ({"rank": 1}, 0.01, 0.1),
        ({"rank": 64}, 0.01, 0.1),
    ]


def test_a_default_outside_of_the_declared_values_is_searched_too() -> None:
    spec = spec_of()
    spec = replace(spec, method=replace(spec.method, config={"rank": 3, "alpha": 8.0}))
    space, default = search._space(spec)
    assert space["method.rank"] == [1, 8, 64, 3] and default["method.rank"] == 3
    assert spec.search is not None and spec.search["space"]["rank"] == [1, 8, 64]


# What a careless user types


def test_bad_input(cli: CLI, small: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cli("run", "--search", "0", small=True).refused("search = 0", "at least 1")
    cli("run", "--search", "few", small=True).refused("'few' is not a whole number")
    cli("run", "--search", "2", "--sampler", "randon", small=True).refused("Did you mean random?")
    cli("run", "--sampler", "tpe", small=True).refused("--search 20 --sampler tpe")
    settings = ["--set", "protocol.search_learning_rate=1,-1"]
    cli("run", "--search", "2", *settings, small=True).refused(
        "search_learning_rate", "learning_rate = -1.0", "> 0"
    )
    settings = ["--set", "protocol.search_train_split=trainval"]
    cli("run", "--search", "2", *settings, small=True).refused("'val' is part of", "'trainval'")
    settings = ["--set", "protocol.search_val_split=test"]
    cli("run", "--search", "2", *settings, small=True).refused("would choose on test")
    settings = ["--set", "protocol.search_val_split=dev"]
    cli("run", "--search", "2", *settings, small=True).refused("no split 'dev'")
    Path("search.toml").write_text('search = "many"')
    cli("run", "--plan", "search.toml").refused("search = 'many' must be a whole number")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "optuna" else find(name, *a)
    )
    arguments = ["run", "--search", "2", "--sampler", "tpe"]
    cli(*arguments, small=True).refused("pip install 'petlbench[search]'")
    assert not Path("results").exists()
    assert cli("run", "--search", "1", small=True).code == 0  # a random search needs no Optuna


def test_a_missing_validation_list_is_told_before_anything_runs(
    small: dict[str, Any], vtab_root: Path
) -> None:
    request = on_disk(small, vtab_root / "cifar") | {"tasks": ["cifar", "dtd"]}
    (vtab_root / "dtd" / "val200.txt").unlink()
    with pytest.raises(UsageError, match=r"(?s)1 of 2 tasks.*dtd: no list file .*val200\.txt"):
        plan.make(Request(**request, search=2))
    assert plan.make(Request(**request)).todo  # it is not needed without a search


def test_a_setting_that_a_method_does_not_have_cannot_be_searched(small: dict[str, Any]) -> None:
    Path("picky.py").write_text(OWN.replace('"size": (0', '"sise": (0'))
    with pytest.raises(UsageError, match="unknown setting of picky 'sise'"):
        made(small, methods=["./picky.py"])


def test_the_command_line_asks_for_a_search(cli: CLI) -> None:
    done = cli("run", "--search", "2", "--sampler", "tpe", small=True)
    assert done.code == 0, done
    assert "search: 2 trials (tpe) for each method and task, trained on train" in done.out
    ((record,),) = records().values()
    assert record["search"]["sampler"] == "tpe" and "optuna" in record["environment"]
