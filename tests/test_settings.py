"""Settings: bad values are refused with owner, field, value and what is allowed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from petlbench import settings
from petlbench.errors import UsageError, unknown
from petlbench.settings import setting


@dataclass(frozen=True)
class Example:
    rank: int = setting(8, at_least=1)
    scale: float = setting(1.0, above=0, at_most=10)
    dropout: float = setting(0.0, at_least=0, below=1)
    bias: bool = False
    note: str = ""
    init: Literal["xavier", "zero"] = "xavier"

    def __post_init__(self) -> None:
        settings.check(self, "example")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rank": 0}, "example.rank = 0 is out of range; it must be >= 1."),
        ({"rank": 1.0}, "example.rank = 1.0 must be of type int."),
        ({"rank": True}, "example.rank = True must be of type int."),
        ({"rank": "8"}, "example.rank = '8' must be of type int."),
        ({"rank": None}, "example.rank = None must be of type int."),
        ({"scale": 0}, "example.scale = 0 is out of range; it must be <= 10 and > 0."),
        ({"scale": 10.5}, "example.scale = 10.5 is out of range"),
        ({"scale": math.nan}, "example.scale = nan must be finite."),
        ({"scale": math.inf}, "example.scale = inf must be finite."),
        ({"scale": True}, "example.scale = True must be of type float."),
        ({"dropout": 1.0}, "example.dropout = 1.0 is out of range"),
        ({"bias": 1}, "example.bias = 1 must be of type bool."),
        ({"note": 3}, "example.note = 3 must be of type str."),
        ({"init": "zeros"}, "example.init = 'zeros' is not allowed; choose one of 'xavier', 'z"),
    ],
)
def test_bad_values_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Example(**values)
    assert message in str(raised.value)


@given(
    rank=st.integers(1, 1000),
    scale=st.floats(0, 10, exclude_min=True) | st.integers(1, 10),
    dropout=st.floats(0, 1, exclude_max=True),
    init=st.sampled_from(["xavier", "zero"]),
)
def test_good_values_are_kept(rank: int, scale: float, dropout: float, init: Any) -> None:
    example = Example(rank=rank, scale=scale, dropout=dropout, init=init)
    assert (example.rank, example.scale, example.dropout) == (rank, scale, dropout)
    assert type(example.scale) is float  # an int given for a float becomes one


@given(st.floats(allow_nan=False, allow_infinity=False), st.integers())
def test_text_is_parsed_as_its_type(number: float, whole: int) -> None:
    assert settings.parse(Example, "example", "scale", repr(number)) == number
    assert settings.parse(Example, "example", "rank", str(whole)) == whole


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("TRUE", True)])
def test_text_of_a_bool(text: str, value: bool) -> None:
    assert settings.parse(Example, "example", "bias", text) is value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("bias", "yes", "example.bias = 'yes' must be true or false."),
        ("rank", "8.5", "example.rank = '8.5' must be a value of type int."),
        ("scale", "big", "example.scale = 'big' must be a value of type float."),
        ("scale", "", "must be a value of type float."),
        ("rnak", "8", "unknown setting of example 'rnak'. Did you mean rank?"),
    ],
)
def test_bad_text_is_refused(name: str, text: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        settings.parse(Example, "example", name, text)
    assert message in str(raised.value)


def test_text_stays_text() -> None:
    assert settings.parse(Example, "example", "init", "zero") == "zero"
    assert settings.parse(Example, "example", "note", "1e3") == "1e3"


def test_a_class_without_settings_says_so() -> None:
    @dataclass(frozen=True)
    class Plain:
        pass

    with pytest.raises(UsageError, match=r"^linear has no settings; remove linear\.rank\.$"):
        settings.known(Plain, "linear", "rank")


def test_settings_are_listed_in_order() -> None:
    assert list(settings.settings_of(Example)) == [
        "rank",
        "scale",
        "dropout",
        "bias",
        "note",
        "init",
    ]


def test_unknown_names_are_explained() -> None:
    assert "Did you mean lora?" in str(unknown("method", "LoRa", ["lora", "vpt"]))
    assert "Known: lora, vpt." in str(unknown("method", "zzzz", ["vpt", "lora"]))
    assert "Known: none." in str(unknown("method", "zzzz", []))
    assert str(unknown("x", "zzzz", map(str, range(99)))) == "unknown x 'zzzz'."
