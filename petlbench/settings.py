"""Checked settings: the fields of a frozen dataclass are its configuration.

Methods and protocols are frozen dataclasses. A field's annotation says what is allowed (`int`,
`float`, `bool`, `str` or a `Literal` of strings) and `setting()` adds bounds. `check` refuses a
bad value naming owner, field, value and what is allowed; `parse` reads command-line text.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from typing import Any, Literal, TypeVar

from petlbench.errors import UsageError, unknown

T = TypeVar("T", int, float)
_hints = functools.cache(typing.get_type_hints)  # a plan asks dozens of times


def setting(
    default: T,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> T:
    """A numeric dataclass field with bounds: `rank: int = setting(8, at_least=1)`."""
    bounds = {">=": at_least, "<=": at_most, ">": above, "<": below}
    metadata = {symbol: bound for symbol, bound in bounds.items() if bound is not None}
    field: Any = dataclasses.field(default=default, metadata=metadata)
    return field  # type: ignore[no-any-return]  # a field stands for its value, as in dataclasses


def settings_of(cls: type) -> dict[str, Any]:
    """Setting name -> annotated type, in order of declaration."""
    hints = _hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls) if field.init}


def check(instance: Any, owner: str) -> None:
    """Refuse wrong types and values out of bounds; an int given for a float becomes a float."""
    hints = _hints(instance.__class__)
    for field in dataclasses.fields(instance):
        value: Any = getattr(instance, field.name)
        hint = hints[field.name]
        where = f"{owner}.{field.name} = {value!r}"
        if typing.get_origin(hint) is Literal:
            if value not in typing.get_args(hint):
                allowed = ", ".join(map(repr, typing.get_args(hint)))
                raise UsageError(f"{where} is not allowed; choose one of {allowed}.")
            continue
        if hint is float and type(value) is int:
            try:
                value = float(value)
            except OverflowError:
                raise UsageError(f"{owner}.{field.name} must be finite.") from None
            object.__setattr__(instance, field.name, value)  # frozen, and not yet shared
        if typing.get_origin(hint) is tuple:
            object.__setattr__(instance, field.name, _tuple(value, typing.get_args(hint)[0], where))
            continue
        if hint in (int, float, bool, str) and type(value) is not hint:
            raise UsageError(f"{where} must be of type {hint.__name__}.")
        if hint is float and not math.isfinite(value):
            raise UsageError(f"{where} must be finite.")
        tests = {
            ">=": lambda v, b: v >= b,
            "<=": lambda v, b: v <= b,
            ">": lambda v, b: v > b,
            "<": lambda v, b: v < b,
        }
        if not all(tests[symbol](value, bound) for symbol, bound in field.metadata.items()):
            allowed = " and ".join(
                f"{symbol} {bound:g}" for symbol, bound in field.metadata.items()
            )
            raise UsageError(f"{where} is out of range; it must be {allowed}.")


def _tuple(values: Any, kind: type, where: str) -> tuple[Any, ...]:
    """A list of texts or of finite numbers, as a tuple."""
    given = list(values) if isinstance(values, (list, tuple)) else [values]
    found = [float(v) if kind is float and type(v) is int else v for v in given]
    if any(type(v) is not kind or (isinstance(v, float) and not math.isfinite(v)) for v in found):
        raise UsageError(f"{where} must be a list of type {kind.__name__}.")
    return tuple(found)


def known(cls: type, owner: str, name: str) -> Any:
    """The annotated type of the setting `name`; an unknown name is refused with a suggestion."""
    hints = settings_of(cls)
    if name not in hints:
        if not hints:
            raise UsageError(f"{owner} has no settings; remove {owner}.{name}.")
        raise unknown(f"setting of {owner}", name, hints)
    return hints[name]


def parse(cls: type, owner: str, name: str, text: str) -> Any:
    """The value that the command-line text `owner.name=text` stands for; lists take commas."""
    hint = known(cls, owner, name)
    try:
        if hint is bool:
            return {"true": True, "false": False}[text.lower()]
        if hint in (int, float):
            return hint(text)
        if typing.get_origin(hint) is tuple:
            kind = typing.get_args(hint)[0]
            return tuple(kind(part.strip()) for part in text.split(",") if part.strip())
    except (KeyError, ValueError):
        is_list = typing.get_origin(hint) is tuple
        wanted = "true or false" if hint is bool else f"a value of type {hint.__name__}"
        wanted = "numbers with commas between them" if is_list else wanted
        raise UsageError(f"{owner}.{name} = {text!r} must be {wanted}.") from None
    return text
