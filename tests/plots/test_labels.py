"""Names in one column: apart, inside, and no further from their places than they must be."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from petlbench.plots._labels import stack

NAMES = st.lists(
    st.tuples(st.floats(0, 10, width=16), st.floats(0.25, 2, width=16)), min_size=1, max_size=6
)


@settings(deadline=None)
@given(NAMES, st.floats(0, 5, width=16))
def test_names_are_apart_inside_and_near(names: list[tuple[float, float]], spare: float) -> None:
    at, heights = np.array(names).T
    room = max(10.0, heights.sum() + spare)
    placed = stack(at, heights, room)
    assert (placed - heights / 2 >= -1e-9).all() and (placed + heights / 2 <= room + 1e-9).all()
    for i, j in itertools.combinations(range(len(at)), 2):
        assert abs(placed[i] - placed[j]) >= (heights[i] + heights[j]) / 2 - 1e-9
        assert (placed[i] >= placed[j]) if at[i] >= at[j] else (placed[i] <= placed[j])

    order = np.argsort(placed)
    gaps = (heights[order][1:] + heights[order][:-1]) / 2
    best = minimize(
        lambda x: ((x - at[order]) ** 2).sum(),
        placed[order],
        constraints={"type": "ineq", "fun": lambda x: np.diff(x) - gaps} if len(at) > 1 else (),
        bounds=[(h / 2, room - h / 2) for h in heights[order]],
        method="SLSQP",
    )
    assert ((placed - at) ** 2).sum() <= best.fun + 1e-4


def test_names_with_room_stay_where_they_are() -> None:
    at = np.array([5.0, 1.0, 3.0])
    assert (stack(at, np.ones(3), 6.0) == at).all()
