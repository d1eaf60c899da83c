"""Figures of a comparison, fit for print: one module each, found by its file name.

The kind of a figure is its file's name with hyphens. A figure is a module with these; nothing else
knows of it:

    docstring               its first line is what the figure shows
    draw(results, ...)      the figure of a comparison; further parameters are keywords with a
                            default, and the only options that it takes
    fits(results)           whether a comparison has what is drawn, where that is not a matter of
                            course

Figures are drawn without pyplot and free of its global state. Only complete rows are drawn; the
others are named below. The same input always gives the same file. What figures share is in
`_base.py`; nothing is imported before something is drawn.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench import found as modules
from petlbench.errors import UsageError, unknown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from petlbench.results import Results

SUFFIXES = (".png", ".pdf", ".svg")


def names() -> tuple[str, ...]:
    """The kinds of figures, by the alphabet."""
    return tuple(name.replace("_", "-") for name in modules.names(__path__))


def load(kind: str) -> Any:
    """The module of that figure."""
    return modules.load(__name__, "plot", kind, names())


def options(kind: str) -> Mapping[str, Any]:
    """What a figure may be asked for beside the comparison, with the defaults."""
    _, *declared = inspect.signature(load(kind).draw).parameters.values()
    return {parameter.name: parameter.default for parameter in declared}


def check(kind: str, path: Path | None, style: str, chosen: Collection[str]) -> None:
    """Refuse what `draw` cannot do with any comparison: before one is read and judged.

    Raises:
        UsageError: An unknown kind, style, option or ending.
    """
    known = options(kind)
    for name in chosen:
        if name not in known:
            raise unknown(f"option of {kind}", name, known)
    from petlbench.plots import _base  # only now: it takes a second to import

    if style not in _base.STYLES:
        raise unknown("style of plots", style, _base.STYLES)
    if path is not None and path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"cannot draw to {path}: the file name must end in {', '.join(SUFFIXES)}.")


def draw(
    kind: str,
    results: Results,
    path: Path | str | None = None,
    style: str = "screen",
    **chosen: Any,
) -> Figure:
    """The figure of that kind, written to `path` if there is one.

    Args:
        kind: One of `names`.
        results: The comparison.
        path: A file that ends in .png, .pdf or .svg.
        style: A name of `_base.STYLES`.
        chosen: What the figure's own `options` allow.

    Raises:
        UsageError: An unknown kind, style, option or ending, or nothing to draw.
    """
    path = None if path is None else Path(path)
    check(kind, path, style, chosen)
    if not any(row.rank for row in results.board.rows):
        raise UsageError(
            f"nothing to plot: no method of suite {results.board.suite} has finished every task. "
            "Type the same `petlbench run` again to finish or retry what is missing."
        )
    from petlbench.plots import _base

    with _base.styled(style):
        figure: Figure = load(kind).draw(results, **chosen)
        if path is not None:
            _base.save(figure, path)
    return figure


def candidates(kind: str, found: Sequence[Results]) -> list[Results]:
    """The comparisons that have what the figure shows; all of them if none has."""
    fits = getattr(load(kind), "fits", lambda _: True)
    return [results for results in found if fits(results)] or list(found)
