"""A run's key and fingerprint change exactly when they must."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from petlbench import protocol
from petlbench.method import MethodSpec
from petlbench.spec import RunSpec
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
