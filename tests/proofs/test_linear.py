"""Linear probe, proven."""

from __future__ import annotations

from reference.vit import plain

block = plain
ADDED = ()
MORE = [{}]
FIXED_ENCODER = True
COUNTS = [({}, 0)]
