"""What the figure of scores against a cost and the report's chart share; no plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence

Units = Sequence[tuple[float, str]]  # size and name, the largest first
COUNTS: Units = ((1e9, "B"), (1e6, "M"), (1e3, "K"), (1, ""))


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of (cost, value) points that no other matches at most the cost and beats."""
    return [
        i
        for i, (cost, value) in enumerate(points)
        if not any(c <= cost and v >= value and (c, v) != (cost, value) for c, v in points)
    ]


def ticks(low: float, high: float) -> list[float]:
    """Of a logarithmic axis: powers of ten, and their 2 and 5 times where it is short."""
    first, last = math.log10(low), math.log10(high)
    factors = (1,) if last - first > 2.2 else (1, 2, 5)
    powers = range(math.floor(first), math.floor(last) + 1)
    return [f * 10.0**k for k in powers for f in factors if low <= f * 10.0**k <= high]


def short(number: float, units: Units) -> str:
    """10K, 1.5M: in the largest unit that is not larger."""
    size, unit = next((u for u in units if number >= u[0] * 0.999), units[-1])
    return f"{number / size:,.12g}{unit}"
