"""Protocols: strict files, and a fingerprint that tells every change of the rules."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from petlbench import method, protocol, weights
from petlbench.errors import UsageError
from petlbench.protocol import Protocol
from petlbench.spec import RunSpec

# Another allowed value for every field that is part of the rules.
CHANGES: dict[str, Any] = {
    "image_size": 96,
    "resize": "bilinear",
    "normalisation": "imagenet",
    "learning_rate": 5e-4,
    "weight_decay": 0.01,
    "warmup_learning_rate": 0.0,
    "min_learning_rate": 0.0,
    "epochs": 50,
    "warmup_epochs": 5,
    "batch_size": 32,
    "drop_last": False,
    "drop_path": 0.0,
    "precision": "fp32",
    "towers": "text",
    "head": "text",
    "prompt": "{}",
    "train_split": "train800",
    "test_split": "holdout",
    "resize_to": 256,
    "keep_aspect": True,
    "optimizer": "sgd",
    "momentum": 0.9,
    "beta2": 0.98,
    "learning_rate_batch": 256,
    "head_learning_rate": 1e-4,
    "schedule": "linear",
    "augmentation": "noah",
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
    "temperature": 0.07,
    "search_train_split": "train",
    "search_val_split": "val",
    "search_learning_rate": [1e-3],
    "search_weight_decay": [1e-3],
}
ONLY_ONE_VALUE = {"selection"}  # so far


def fingerprint(chosen: Protocol) -> str:
    linear = method.MethodSpec("linear", "linear", None, {}, "linear")
    backbone = weights.BackboneSpec("vit_mini", weights.RANDOM)
    shared: dict[str, Any] = dict(suite="s", task="t", group="g", classes=2, seed=0, members={})
    return RunSpec(
        **shared, method=linear, backbone=backbone, protocol=chosen.name, rules=chosen.rules()
    ).fingerprint


def test_every_shipped_protocol_loads() -> None:
    assert {"mini", "vtab-1k"} <= protocol.names().keys()
    for name, description in protocol.names().items():
        assert protocol.load(name).name == name
        assert description


def test_vtab_1k_is_the_published_recipe() -> None:
    rules = protocol.load("vtab-1k").rules()
    assert rules["image_size"] == 224 and rules["resize"] == "bicubic"
    assert rules["normalisation"] == "checkpoint"
    assert (rules["learning_rate"], rules["weight_decay"]) == (1e-3, 1e-4)
    assert (rules["epochs"], rules["warmup_epochs"], rules["batch_size"]) == (100, 10, 64)
    assert (rules["drop_path"], rules["augmentation"]) == (0.1, "none")
    assert (rules["train_split"], rules["selection"]) == ("train800val200", "final-epoch")


def test_every_rule_is_tried_below() -> None:
    assert CHANGES.keys() | ONLY_ONE_VALUE == protocol.load("vtab-1k").rules().keys()


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_rule_changes_the_fingerprint(name: str) -> None:
    original = protocol.load("vtab-1k")
    changed = protocol.override(original, {name: CHANGES[name]})
    assert changed.name == original.name
    assert fingerprint(changed) != fingerprint(original)


def test_every_resampling_is_a_rule_of_its_own() -> None:
    original = protocol.load("vtab-1k")
    names = ("bicubic", "bilinear", "bicubic-torch", "bilinear-torch")
    changed = [protocol.override(original, {"resize": name}) for name in names]
    assert len({fingerprint(one) for one in changed}) == 4
    assert fingerprint(changed[0]) == fingerprint(original)


@pytest.mark.parametrize("values", [{"seeds": 7}, {"description": "another text"}, {}])
def test_seeds_and_description_do_not_change_it(values: dict[str, Any]) -> None:
    original = protocol.load("vtab-1k")
    assert fingerprint(protocol.override(original, values)) == fingerprint(original)


def test_the_name_does_not_change_it() -> None:
    original = protocol.load("vtab-1k")
    assert fingerprint(dataclasses.replace(original, name="copy")) == fingerprint(original)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 5}, "unknown setting of protocol 'epoch'. Did you mean epochs"),
        ({"name": "mine"}, "protocol.name is given by its file and cannot be set."),
        ({"epochs": "many"}, "protocol.epochs = 'many' must be of type int."),
        ({"epochs": 2.0}, "protocol.epochs = 2.0 must be of type int."),
        ({"epochs": 0, "warmup_epochs": 0}, "protocol.epochs = 0 is out of range"),
        ({"epochs": 10}, "protocol.warmup_epochs = 10 must be smaller than protocol.epochs = 10"),
        ({"learning_rate": 0}, "protocol.learning_rate = 0 is out of range"),
        ({"drop_last": "true"}, "protocol.drop_last = 'true' must be of type bool."),
        ({"resize": "nearest"}, "choose one of 'bicubic', 'bilinear'"),
        ({"optimizer": "lion"}, "protocol.optimizer = 'lion' is not allowed"),
    ],
)
def test_bad_overrides_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        protocol.override(protocol.load("vtab-1k"), values)
    assert message in str(raised.value)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """`protocols/` replaced by a folder to write to."""
    monkeypatch.setattr(protocol.resources, "files", lambda package: tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 20\nepocs = 3", "unknown setting of protocol 'epocs'. Did you mean epochs"),
        ("[recipe]\nepochs = 20", "unknown setting of protocol 'recipe'"),
        ("epochs = '20'", "protocol.epochs = '20' must be of type int."),
        ("learning_rate = true", "protocol.learning_rate = True must be of type float."),
        ("epochs = [20]", "protocol.epochs = [20] must be of type int."),
        ("epochs = ", "protocol protocols/mine.toml is not valid TOML: "),
        ("epochs = 20\nepochs = 20", "protocols/mine.toml is not valid TOML: "),
    ],
)
def test_files_are_strict(folder: Path, text: str, message: str) -> None:
    (folder / "mine.toml").write_text(text)
    with pytest.raises(UsageError) as raised:
        protocol.load("mine")
    assert message in str(raised.value)


def test_a_file_is_found_by_its_name(folder: Path) -> None:
    (folder / "mine.toml").write_text("description = 'of mine'\nepochs = 20\nlearning_rate = 1")
    mine = protocol.load("mine")
    assert (mine.name, mine.epochs, mine.learning_rate) == ("mine", 20, 1.0)
    assert protocol.names() == {"mine": "of mine"}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown protocol 'vtab1k'\. Did you mean vtab-1k"):
        protocol.load("vtab1k")


@pytest.mark.parametrize("name", protocol.names())
def test_shipped_files_state_every_rule(name: str) -> None:
    """A reader sees the whole recipe in the file, not half of it in the code's defaults."""
    file = Path(protocol.__file__).parent / "protocols" / f"{name}.toml"
    assert (
        tomllib.loads(file.read_text()).keys() >= protocol.said(protocol.load(name).rules()).keys()
    )


def test_a_protocol_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "short.toml"
    file.write_text("epochs = 2\nwarmup_epochs = 1\n")
    own = protocol.load(str(file))
    assert (own.name, own.epochs, own.image_size) == ("short", 2, 224)
    file.write_text("epoch = 2\n")
    with pytest.raises(UsageError, match="Did you mean epochs"):
        protocol.load(str(file))
    with pytest.raises(UsageError, match="no protocol file"):
        protocol.load(str(tmp_path / "absent.toml"))


def test_training_on_the_test_split_is_refused() -> None:
    for train, test in (("test", "test"), ("train800val200", "val200"), ("trainval", "val")):
        with pytest.raises(UsageError, match="is part of the training split"):
            Protocol(name="leak", train_split=train, test_split=test)
