"""A run's key and fingerprint change exactly when they must."""

from __future__ import annotations

import hashlib
import itertools
import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from petlbench import protocol
from petlbench.method import MethodSpec
from petlbench.spec import RunSpec, identify, identify_all
from petlbench.weights import BackboneSpec

RULES = protocol.load("vtab-1k").rules() | {"mean": [0.5] * 3, "std": [0.5] * 3}
SPEC = RunSpec(
    suite="vtab-1k",
    task="cifar",
    group="Natural",
    classes=100,
    seed=0,
    method=MethodSpec("lora", "lora", None, {"rank": 8}, "lora"),
    backbone=BackboneSpec("vit", "ab" * 32, "/somewhere/vit.safetensors"),
    protocol="vtab-1k",
    rules=RULES,
    members={"train": "1" * 64, "test": "2" * 64},
)


def changed(value: Any) -> st.SearchStrategy[Any]:
    """Other values of the same type."""
    kinds: dict[type, st.SearchStrategy[Any]] = {
        bool: st.just(not value),
        int: st.integers(0, 10_000),
        float: st.floats(0, 10),
        str: st.text(max_size=9),
        list: st.lists(st.floats(0, 1), min_size=3, max_size=3),
    }
    return kinds[type(value)].filter(lambda other: other != value)


@given(st.sampled_from(sorted(RULES)).flatmap(lambda k: st.tuples(st.just(k), changed(RULES[k]))))
def test_any_rule_changes_key_and_fingerprint(change: tuple[str, Any]) -> None:
    other = replace(SPEC, rules=RULES | dict([change]))
    assert other.key != SPEC.key
    assert other.fingerprint != SPEC.fingerprint


@given(st.text(max_size=9).filter(lambda text: text not in ("vit", "ab" * 32, "vtab-1k")))
def test_suite_and_backbone_change_both(text: str) -> None:
    for other in (
        replace(SPEC, suite=text),
        replace(SPEC, backbone=replace(SPEC.backbone, name=text)),
        replace(SPEC, backbone=replace(SPEC.backbone, checkpoint=text)),
    ):
        assert other.key != SPEC.key
        assert other.fingerprint != SPEC.fingerprint


@given(
    seed=st.integers(1, 10**9),
    text=st.text(max_size=9).filter(lambda text: text not in ("cifar", "lora")),
    rank=st.integers().filter(lambda rank: rank != 8),
)
def test_task_seed_and_method_change_the_key_alone(seed: int, text: str, rank: int) -> None:
    others = [
        replace(SPEC, seed=seed),
        replace(SPEC, task=text),
        replace(SPEC, method=replace(SPEC.method, name=text)),
        replace(SPEC, method=replace(SPEC.method, source=text)),
        replace(SPEC, method=replace(SPEC.method, config={"rank": rank})),
        replace(SPEC, members={"train": text, "test": "2" * 64}),
    ]
    keys = {other.key for other in [*others, SPEC]}
    assert len(keys) == len(others) + 1
    assert {other.fingerprint for other in others} == {SPEC.fingerprint}


@given(st.text())
def test_paths_and_names_of_files_change_nothing(path: str) -> None:
    other = replace(
        SPEC,
        backbone=replace(SPEC.backbone, path=path),
        method=replace(SPEC.method, reference=path),
    )
    assert (other.key, other.fingerprint) == (SPEC.key, SPEC.fingerprint)
    assert other.as_dict() == SPEC.as_dict()


def test_order_of_settings_changes_nothing() -> None:
    other = replace(SPEC, rules=dict(reversed(RULES.items())))
    assert (other.key, other.fingerprint) == (SPEC.key, SPEC.fingerprint)


def test_keys_are_stable_across_versions() -> None:
    """Pinned: recorded runs are found by this name, so changing it orphans every result."""
    rules: dict[str, Any] = {"epochs": 3, "mean": [0.5, 0.5, 0.5], "image_size": 16}
    spec = replace(SPEC, rules=rules)
    assert (spec.key, spec.fingerprint) == ("5d17f5fbb5c02a4f", "5181821aa205")


def test_the_stored_form_holds_everything_but_paths() -> None:
    stored = SPEC.as_dict()
    text = json.dumps(stored)
    assert "/somewhere" not in text
    assert stored["backbone"] == {"name": "vit", "checkpoint": "ab" * 32, "image_size": 224}
    assert stored["protocol"] == {"name": "vtab-1k", **RULES}
    assert stored["method"] == {
        "name": "lora",
        "source": None,
        "config": {"rank": 8},
        "label": "lora",
    }
    assert json.loads(text) == stored


def plain(stored: dict[str, Any]) -> tuple[str, str]:
    """Key and fingerprint by their definition: hashes of one JSON object each."""

    def digest(told: dict[str, Any]) -> str:
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    method, rules = stored["method"], dict(stored["protocol"])
    del rules["name"]
    comparison = {
        "suite": stored["suite"],
        "backbone": [stored["backbone"]["name"], stored["backbone"]["checkpoint"]],
        "rules": protocol.said(rules),
    }
    run = {
        "task": stored["task"],
        "seed": stored["seed"],
        "method": [method["name"], method["source"], method["config"]],
        "members": stored["members"],
    }
    if "lineage" in stored:
        comparison["lineage"] = stored["lineage"]
    if "search" in stored:
        comparison["search"] = [stored["search"]["trials"], stored["search"]["sampler"]]
        run["space"] = stored["search"]["space"]
    if "preset" in method:
        run["method"].append(method["preset"]["name"])
    return digest(comparison | run)[:16], digest(comparison)[:12]


VALUES = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(-9, 9), st.text(max_size=9))
TABLES = st.dictionaries(st.text(max_size=9), VALUES, max_size=3)
METHODS = st.builds(
    MethodSpec,
    reference=st.text(max_size=9),
    name=st.text(max_size=9),
    source=st.none() | st.text(max_size=9),
    config=TABLES,
    label=st.text(max_size=9),
    preset=st.none() | st.fixed_dictionaries({"name": st.text(max_size=9)}),
)
SEARCHES = st.none() | st.fixed_dictionaries(
    {"trials": st.integers(1, 99), "sampler": st.text(max_size=9), "space": TABLES}
)


@given(st.data())
def test_many_at_once_have_the_keys_of_each_alone(data: st.DataObject) -> None:
    """Also where they share their parts, as the specs of a plan do, and as records tell them."""

    def some(kind: st.SearchStrategy[Any]) -> list[Any]:
        return data.draw(st.lists(kind, min_size=1, max_size=2))

    rules = [RULES | more for more in some(TABLES.filter(lambda table: "name" not in table))]
    parts = itertools.product(
        some(st.text(max_size=9)), some(METHODS), some(TABLES), some(SEARCHES), rules
    )
    specs = [
        replace(
            SPEC,
            suite=data.draw(st.text(max_size=9)),
            seed=seed,
            method=method,
            members=members,
            search=searched,
            lineage=lineage,
            rules=each,
        )
        for seed, (lineage, method, members, searched, each) in enumerate(parts)
    ]
    alone = [(spec.key, spec.fingerprint) for spec in map(replace, specs)]
    identify_all(specs)
    for spec, expected in zip(specs, alone, strict=True):
        stored = json.loads(json.dumps(spec.as_dict()))
        assert (spec.key, spec.fingerprint) == expected == plain(stored) == identify(stored)


SEARCH = {"trials": 8, "sampler": "random", "space": {"rank": [4, 8]}}


def test_a_search_is_a_comparison_of_its_own_and_its_space_another_run() -> None:
    searched = replace(SPEC, search=SEARCH)
    assert searched.key != SPEC.key and searched.fingerprint != SPEC.fingerprint
    assert searched.as_dict()["search"] == SEARCH and "search" not in SPEC.as_dict()
    for change in ({"trials": 9}, {"sampler": "tpe"}):
        other = replace(SPEC, search=SEARCH | change)
        assert other.key != searched.key and other.fingerprint != searched.fingerprint
    other = replace(SPEC, search=SEARCH | {"space": {}})
    assert other.key != searched.key and other.fingerprint == searched.fingerprint


def test_what_a_trial_must_not_read_is_no_part_of_its_name() -> None:
    other = replace(SPEC, sealed_splits=("test",))
    assert (other.key, other.fingerprint) == (SPEC.key, SPEC.fingerprint)
