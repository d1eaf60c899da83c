"""BitFit, proven."""

from __future__ import annotations

from reference.vit import Params, plain

block = plain
SETTINGS = [{}]
COUNTS = [({}, 102_912)]


def trained(p: Params) -> set[str]:
    return {"head.weight", *(name for name in p if name.endswith(".bias"))}
