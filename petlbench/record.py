"""What a record is, and what keeps one from being counted: cut short, edited, of another version.

A record that a run wrote agrees with itself: its key and fingerprint are hashes of its spec, its
accuracy is that of its counts. One that does not was changed afterwards, and is no evidence.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from petlbench.spec import identify

SCHEMA = 1
Record = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    """What may stand in a place, in words and as a test."""

    what: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class Each:
    """A dict or a list of things that are alike."""

    kind: Any  # the class
    shape: Any


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**63  # true is no number


def _finite(value: Any) -> bool:
    return (type(value) is float and math.isfinite(value)) or _whole(value)


def _text(value: Any) -> bool:
    """A string that can be written: JSON can hold halves of characters."""
    if not isinstance(value, str):
        return False
    return value.isascii() or not re.search("[\ud800-\udfff]", value)


TEXT = Kind("text", _text)
ANY = Kind("a JSON object", lambda value: isinstance(value, dict))
WHOLE = Kind("a whole number", _whole)
COUNT = Kind("a whole number from 0", lambda value: _whole(value) and value >= 0)
POSITIVE = Kind("a whole number from 1", lambda value: _whole(value) and value > 0)
AMOUNT = Kind("a number from 0", lambda value: _finite(value) and value >= 0)
NUMBER = Kind("a finite number", _finite)
SCORE = Kind("a number in [-1, 1]", lambda value: _finite(value) and -1 <= value <= 1)


def _or_none(kind: Kind) -> Kind:
    return Kind(f"{kind.what} or null", lambda value: value is None or kind.holds(value))


# Names that end in ? may be absent.
METHOD = {
    "name": TEXT,
    "label": TEXT,
    "source": _or_none(TEXT),
    "config": ANY,
    "preset?": {"name": TEXT, "chosen": TEXT},
}
SPEC = {
    "suite": TEXT,
    "task": TEXT,
    "group": TEXT,
    "seed": WHOLE,
    "method": METHOD,
    "backbone": {"name": TEXT, "checkpoint": TEXT, "image_size": COUNT},
    "protocol": {
        "name": TEXT,
        **dict.fromkeys(("train_split?", "search_train_split?", "search_val_split?"), TEXT),
    },
    "members": ANY,
    "lineage?": TEXT,
    "search?": {"trials": COUNT, "sampler": TEXT, "space": ANY},
}
TEST = {
    "total": POSITIVE,
    "correct?": COUNT,
    "metric?": TEXT,
    "metrics?": Each(dict, SCORE),
}
COMMON = {"fingerprint": TEXT, "spec": SPEC, "started?": TEXT, "environment?": ANY}
SEARCHED = {
    "trials": Each(list, {"value": _or_none(SCORE), "config": ANY}),
    "winner": COUNT,
    "sampler": TEXT,
    "metric": TEXT,
    "val_split?": TEXT,
}
PEEK = {"metric": TEXT, "best": SCORE, "curve": Each(list, {"epoch": COUNT})}
SHAPES = {
    "done": COMMON
    | {
        "test": TEST,
        "parameters": {"trainable": COUNT, "head": COUNT},
        "data": {"train": TEXT, "test": TEXT, "test_images_in_training?": COUNT},
        "stored_bytes": COUNT,
        "train_seconds": AMOUNT,
        "test_seconds": AMOUNT,
        "peak_bytes": _or_none(COUNT),
        "shared_bytes?": COUNT,
        "inference?": {"parameters": WHOLE, "flops": WHOLE},
        "train_loss?": Each(list, NUMBER),
        "targets?": Each(dict, TEST | {"group": TEXT, "data": TEXT}),
        "search?": SEARCHED,
        "peek?": PEEK,
        "artifacts?": Each(dict, TEXT),
    },
    "failed": COMMON | {"error": {"type": TEXT, "message?": TEXT}},
}


def problem(record: Any, key: Any) -> str:
    """What keeps this from being the record `key` that can be counted; empty if nothing does."""
    if not isinstance(record, dict) or not isinstance(key, str) or record.get("key") != key:
        return "is not a record of petlbench"
    if record.get("schema") != SCHEMA:
        return (
            f"has schema {_shown(record.get('schema'))}, this version reads {SCHEMA} (read it with "
            "the version of petlbench that wrote it, or run it again)"
        )
    status = record.get("status")
    if not isinstance(status, str) or status not in SHAPES:
        return f"has the unknown status {_shown(status)}"
    return next(_problems(record, SHAPES[status]), "")


def problem_of_spec(spec: Any) -> str:
    """What keeps this from being the spec of a run, as stored with its weights; else empty."""
    return next(_misfits(spec, SPEC, "spec"), "")


def _problems(record: Record, shape: Mapping[str, Any]) -> Iterator[str]:
    yield from _misfits(record, shape)
    key, fingerprint = identify(record["spec"])
    if record["key"] != key:
        yield "was edited: its key is not that of its spec"
    if record["fingerprint"] != fingerprint:
        yield "was edited: its fingerprint is not that of its spec"
    spec, method = record["spec"], record["spec"]["method"]
    if not method["label"].startswith(method["name"]):
        yield f"was edited: {_shown(method['label'])} is no row of {_shown(method['name'])}"
    for split in ("train_split", "search_train_split", "search_val_split"):
        if "search" in spec and split not in spec["protocol"]:
            yield f"lacks spec.protocol.{split}"
    if record["status"] == "done":
        yield from _contradictions(record)


def _misfits(value: Any, shape: Any, where: str = "") -> Iterator[str]:
    """What is missing and what is of another kind, by the place where it should be."""
    if isinstance(shape, Kind):
        if not shape.holds(value):
            yield f"has {where} = {_shown(value)}, which is not {shape.what}"
    elif isinstance(shape, Each):
        if type(value) is not shape.kind:
            yield f"has {where} = {_shown(value)}, which is not a {shape.kind.__name__}"
        else:
            if shape.kind is dict and not all(map(_text, value)):
                yield f"has a name in {where} which is not text"
            parts = value.items() if shape.kind is dict else enumerate(value)
            for name, part in parts:
                if not _holds(part, shape.shape):
                    yield from _misfits(part, shape.shape, f"{where}.{name}")
    elif not isinstance(value, dict):
        yield f"has {where} = {_shown(value)}, which is not {ANY.what}"
    else:
        for name, inner in shape.items():
            plain = name.removesuffix("?")
            if plain in value and _holds(value[plain], inner):
                continue
            path = f"{where}.{plain}".removeprefix(".")
            if plain in value:
                yield from _misfits(value[plain], inner, path)
            elif plain == name:
                yield f"lacks {path}"


def _holds(value: Any, shape: Any) -> bool:
    """Told without a search for what is wrong, which takes most of the time of reading."""
    return isinstance(shape, Kind) and shape.holds(value)


def _contradictions(record: Record) -> Iterator[str]:
    """Where numbers that follow from each other do not."""
    tests = {"test": record["test"]}
    tests |= {f"targets.{name}": test for name, test in record.get("targets", {}).items()}
    for where, test in tests.items():
        metrics = test.get("metrics", {})
        if "correct" not in test and not metrics:
            yield f"lacks {where}.correct"
        if metrics and test.get("metric", "accuracy") not in metrics:
            yield f"lacks {where}.metrics.{test.get('metric', 'accuracy')}"
        if "correct" in test:
            if test["correct"] > test["total"]:
                yield f"was edited: {where} has {test['correct']} of {test['total']} correct"
            accuracy = test["correct"] / test["total"]
            if not _same(metrics.get("accuracy", accuracy), accuracy):
                yield (
                    f"was edited: {where} has {test['correct']} of {test['total']} correct and an "
                    f"accuracy of {metrics['accuracy']}"
                )
    if "search" in record and not record["search"]["winner"] < len(record["search"]["trials"]):
        yield "has search.winner, which is none of its trials"
    if "peek" in record:
        yield from _peeked(record["peek"])


def _peeked(peek: Mapping[str, Any]) -> Iterator[str]:
    values = [point.get(peek["metric"]) for point in peek["curve"]]
    if not values or not all(map(SCORE.holds, values)):
        yield f"lacks {peek['metric']} in peek.curve"
    elif not _same(max(values), peek["best"]):
        yield f"was edited: peek.best is {peek['best']}, and the best of its curve {max(values)}"


def _same(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=0, abs_tol=1e-9)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
