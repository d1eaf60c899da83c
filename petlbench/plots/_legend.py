"""A legend of lines below the axes, in as many columns as fit the page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from petlbench.plots._base import Page, folded, longest, looks, pt


@dataclass(frozen=True)
class Legend:
    """Names of lines that have `looks`; lengths in inches, as those of a page."""

    names: list[str]
    columns: int
    height: float

    @classmethod
    def of(cls, page: Page, names: Sequence[str]) -> Legend:
        wrapped = [folded(name, 36) for name in names]
        fitting = int((page.width - 0.2) / (0.6 + 0.08 * longest(wrapped)))
        columns = max(1, min(4, len(names), fitting))
        tall = [0.06 + 0.165 * (name.count("\n") + 1) for name in wrapped]
        # it fills one column after the other
        highest = max(sum(column) for column in np.array_split(tall, columns))
        return cls(wrapped, columns, 0.06 + highest)

    def draw(self, figure: Figure, top: float) -> None:
        """With its upper edge at that fraction of the figure's height."""
        figure.legend(
            [Line2D([], [], **look, lw=1.2, ms=5, mew=0.8) for look in looks(len(self.names))],
            self.names,
            loc="upper center",
            bbox_to_anchor=(0.5, top),
            ncols=self.columns,
            frameon=False,
            fontsize=pt(9),
            handlelength=3,
            columnspacing=1.2,
            borderaxespad=0,
        )
