"""What identifies a run: a frozen spec and its hash."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from petlbench import protocol
from petlbench.method import MethodSpec
from petlbench.weights import BackboneSpec


@dataclass(frozen=True)
class RunSpec:
    """One (method, backbone, task, protocol, seed), with everything that can change its result.

    `rules` are the protocol's resolved fields, `members` the SHA-256 of each split's member list,
    `lineage` how the image files came about, where that is known. `search` says how settings are
    chosen before the run: {"trials", "sampler", "space": method's setting -> values}.
    """

    suite: str
    task: str
    group: str
    classes: int
    seed: int
    method: MethodSpec
    backbone: BackboneSpec
    protocol: str
    rules: dict[str, Any]
    members: dict[str, str]
    problem: str = "classification"
    ordinal: bool = False
    lineage: str = ""
    sealed_splits: tuple[str, ...] = ()  # of a trial: what it must not read either
    search: dict[str, Any] | None = None

    @cached_property
    def key(self) -> str:
        """16 hex digits: the name of the run's record."""
        return self._identity[0]

    @cached_property
    def fingerprint(self) -> str:
        """12 hex digits, equal for runs whose numbers may be ranked against each other."""
        return self._identity[1]

    def as_dict(self) -> dict[str, Any]:
        """As stored in the record: without paths of this machine."""
        return copy.deepcopy(self._told())

    @cached_property
    def _identity(self) -> tuple[str, str]:
        return identify(self._told())

    def _told(self) -> dict[str, Any]:
        """`as_dict` of what specs share: a plan has 100,000 of them."""
        values = {field: getattr(self, field) for field in RunSpec.__dataclass_fields__}
        values["protocol"] = {"name": self.protocol, **values.pop("rules")}
        values["method"] = dict(vars(self.method))
        values["backbone"] = {
            "name": self.backbone.name,
            "checkpoint": self.backbone.checkpoint,
            "image_size": self.rules["image_size"],
        }
        del values["method"]["reference"]
        if self.method.preset is None:
            del values["method"]["preset"]
        for name in ("problem", "ordinal", "lineage", "sealed_splits", "search"):
            if values[name] == getattr(RunSpec, name):  # as records before it
                del values[name]
        return values


def identify(spec: Mapping[str, Any]) -> tuple[str, str]:
    """Key and fingerprint of a run, of its spec as a record has it.

    A preset is part of the key although it does not change the result: every record so stands in
    exactly one row of the leaderboard, the one it was asked for. Where a preset happens to say what
    another row has too, the run is done for each of them: sharing it would leave one of the two
    rows with a hole, or need records that change.
    """
    method, search = spec["method"], spec.get("search")
    rules = {name: value for name, value in spec["protocol"].items() if name != "name"}
    comparison = _texts(
        {
            "suite": spec["suite"],
            "backbone": [spec["backbone"]["name"], spec["backbone"]["checkpoint"]],
            "rules": protocol.said(rules),
            **({"lineage": spec["lineage"]} if spec.get("lineage") else {}),
            **({"search": [search["trials"], search["sampler"]]} if search else {}),
        }
    )
    preset = [method["preset"]["name"]] if method.get("preset") else []
    run = comparison | _texts(
        {
            "task": spec["task"],
            "seed": spec["seed"],
            "method": [method["name"], method["source"], method["config"], *preset],
            "members": spec["members"],
            **({"space": search["space"]} if search else {}),
        }
    )
    return _hash(run, 16), _hash(comparison, 12)


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Each value as JSON, so that what two hashes share is written once."""
    return {name: _encode(value) for name, value in values.items()}


def _hash(texts: Mapping[str, str], digits: int) -> str:
    """Of the JSON object with these values, its names in order."""
    text = "{" + ",".join(f'"{name}":{texts[name]}' for name in sorted(texts)) + "}"
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
