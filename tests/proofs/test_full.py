"""Full fine-tuning, proven."""

from __future__ import annotations

from reference.vit import Params, plain

block = plain
SETTINGS = [{}]
COUNTS = [({}, 85_798_656)]


def trained(p: Params) -> set[str]:
    return set(p)
