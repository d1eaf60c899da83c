"""What identifies a run: a frozen spec and its hash."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
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

    @property
    def key(self) -> str:
        """16 hex digits: the name of the run's record."""
        return self._identity[0]

    @property
    def fingerprint(self) -> str:
        """12 hex digits, equal for runs whose numbers may be ranked against each other."""
        return self._identity[1]

    def as_dict(self) -> dict[str, Any]:
        """As stored in the record: without paths of this machine."""
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
        return copy.deepcopy(values)

    @cached_property
    def _identity(self) -> tuple[str, str]:
        return identify(self._fields())

    def _fields(self) -> dict[str, Any]:
        """What `identify` reads, each part the same object in all specs that share it."""
        method, backbone = vars(self.method), vars(self.backbone)
        return vars(self) | {"method": method, "backbone": backbone, "protocol": self.rules}


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode


def _rules(stored: Mapping[str, Any]) -> dict[str, Any]:
    return protocol.said({name: value for name, value in stored.items() if name != "name"})


def _method(told: Mapping[str, Any]) -> list[Any]:
    """A preset is part of the key although it does not change the result.

    Every record so stands in exactly one row of the leaderboard, the one it was asked for. Where a
    preset happens to say what another row has too, the run is done for each of them: sharing it
    would leave one of the two rows with a hole, or need records that change.
    """
    preset = [told["preset"]["name"]] if told.get("preset") else []
    return [told["name"], told["source"], told["config"], *preset]


# What a run's hash is of: part -> the field of a spec that it is made of, and how. None: left out.
_COMPARISON: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "backbone": ("backbone", lambda backbone: [backbone["name"], backbone["checkpoint"]]),
    "lineage": ("lineage", lambda lineage: lineage or None),
    "rules": ("protocol", _rules),
    "search": ("search", lambda search: [search["trials"], search["sampler"]] if search else None),
    "suite": ("suite", lambda suite: suite),
}
_RUN = {
    **_COMPARISON,
    "members": ("members", lambda members: members),
    "method": ("method", _method),
    "seed": ("seed", lambda seed: seed),
    "space": ("search", lambda search: search["space"] if search else None),
    "task": ("task", lambda task: task),
}


_PARTS = sorted(_RUN.items())


def _text(part: str, value: Any) -> str:
    """A part as a member of a JSON object; empty where there is nothing to say."""
    said = _RUN[part][1](value)
    return "" if said is None else f'"{part}":{_encode(said)}'


def identify(spec: Mapping[str, Any], text: Callable[[str, Any], str] = _text) -> tuple[str, str]:
    """Key and fingerprint of a run, of its spec as a record has it."""
    texts = {part: text(part, spec.get(field)) for part, (field, _) in _PARTS}
    comparison = [texts[part] for part in _COMPARISON]
    return _hash(texts.values(), 16), _hash(comparison, 12)


def _hash(texts: Iterable[str], digits: int) -> str:
    content = "{" + ",".join(filter(None, texts)) + "}"
    return hashlib.sha256(content.encode()).hexdigest()[:digits]


def identify_all(specs: Sequence[RunSpec]) -> None:
    """Find the identities of specs that share most of what they consist of, as a plan's do.

    They are what each finds for itself; a part that is the same object in several is written once.
    """
    known: dict[tuple[str, int], str] = {}

    def text(part: str, value: Any) -> str:
        place = part, id(value)  # `specs` keep it alive
        if place not in known:
            known[place] = _text(part, value)
        return known[place]

    for spec in specs:
        vars(spec)["_identity"] = identify(spec._fields(), text)
