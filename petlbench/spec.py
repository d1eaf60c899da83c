"""What identifies a run: a frozen spec and its hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
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
        return _hash(
            self._comparison()
            | {
                "task": self.task,
                "seed": self.seed,
                "method": [self.method.name, self.method.source, self.method.config, *self._row],
                "members": self.members,
                **({"space": self.search["space"]} if self.search else {}),
            },
            16,
        )

    @property
    def _row(self) -> list[str]:
        """The preset the run belongs to, if any, although it does not change the result.

        Every record so stands in exactly one row of the leaderboard, the one it was asked for.
        Where a preset happens to say what another row has too, the run is done for each of them:
        sharing it would leave one of the two rows with a hole, or need records that change.
        """
        return [self.method.preset["name"]] if self.method.preset else []

    @property
    def fingerprint(self) -> str:
        """12 hex digits, equal for runs whose numbers may be ranked against each other."""
        return _hash(self._comparison(), 12)

    def _comparison(self) -> dict[str, Any]:
        return {
            "suite": self.suite,
            "backbone": [self.backbone.name, self.backbone.checkpoint],
            "rules": protocol.said(self.rules),
            **({"lineage": self.lineage} if self.lineage else {}),
            **({"search": [self.search["trials"], self.search["sampler"]]} if self.search else {}),
        }

    def as_dict(self) -> dict[str, Any]:
        """As stored in the record: without paths of this machine."""
        values = asdict(self)
        values["protocol"] = {"name": self.protocol, **values.pop("rules")}
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


def _hash(value: Any, digits: int) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:digits]
