"""What one source says of one method, from all its tables: a row of a table here.

Rows that a paper repeats from another belong to the other: they are read once, from the first
table that has them.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from petlbench.published import MEANS, TAGS, groups, recompute

if TYPE_CHECKING:
    import pandas as pd

_TAGS = tuple(tag for tag in TAGS if tag != "mean")


@dataclass(frozen=True)
class Row:
    """Numbers in percent, by (task, metric); the name of a mean or of a group is a task here."""

    method: str
    label: str
    source: str
    source_id: str
    tables: tuple[str, ...]  # of a repeated row, also whose
    suite: str
    backbone: str
    pretraining: str
    tags: Mapping[str, str]
    params_millions: float  # mean over tasks; NaN where not printed
    printed: Mapping[tuple[str, str], float]
    notes: tuple[str, ...]

    @cached_property
    def recomputed(self) -> dict[tuple[str, str], float]:
        """Every mean that follows from what is printed."""
        members = groups(self.suite)
        metrics = {metric for _, metric in self.printed}
        wanted = [(name, metric) for name in (*MEANS, *members) for metric in metrics]
        wanted += [(task, "mean_recall") for task, metric in self.printed if metric == "t2i_r1"]
        every = {task for tasks in members.values() for task in tasks}
        found = {}
        for name, metric in wanted:
            has = {task for task, other in self.printed if other == metric}
            if name == "mean of tasks" and not every <= has:
                continue
            value = recompute(name, metric, self.printed, members)
            if not math.isnan(value):
                found[name, metric] = value
        return found

    @property
    def scores(self) -> dict[tuple[str, str], float]:
        """What is printed and, where it is not, what follows from it."""
        return {**self.recomputed, **self.printed}

    @property
    def protocol(self) -> str:
        """The tags in a few words."""
        words = {
            "normalisation": "normalisation {}",
            "checkpoint": "checkpoint {}",
            "selection": "epoch {}",
            "image_source": "images {}",
            "tuning": "tuning: {}",
            "epochs": "{} epochs",
            "seeds": "seeds: {}",
        }
        known = [words[tag].format(text) for tag, text in self.tags.items() if text != "unknown"]
        unknown = [tag.replace("_", " ") for tag, text in self.tags.items() if text == "unknown"]
        return ", ".join(known + ([f"unknown: {', '.join(unknown)}"] if unknown else []))


def of(frame: pd.DataFrame) -> list[Row]:
    """The rows of numbers that `select` gave, in their order."""
    lines: defaultdict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    sources: dict[str, str] = dict(zip(frame["source_id"], frame["source"], strict=True))
    for each in frame.to_dict("records"):
        line = {str(name): value for name, value in each.items()}
        if told := re.fullmatch(r"(.*) \((.*?)\).*", line["quoted_from"]):
            paper = line["experiment"].partition("/")[0]
            line["tables"] = f"{line['table']} of {paper}"
            line["source"], line["source_id"] = told.groups()
            line["source"] = sources.get(line["source_id"], line["source"])
        else:
            line["tables"] = line["table"]
        whose = ("suite", "method", "label", "source_id", "backbone", "pretraining", *_TAGS)
        lines[tuple(line[name] for name in whose)].append(line)
    return [_row(found) for found in lines.values()]


def _row(lines: list[dict[str, Any]]) -> Row:
    first = lines[0]
    printed: dict[tuple[str, str], float] = {}
    for line in lines:
        printed.setdefault((line["task"], line["metric"]), line["percent"])
    sized = [line for line in lines if not math.isnan(line["params_millions"])]
    sizes = [x["params_millions"] for x in sized if x["experiment"] == sized[0]["experiment"]]
    about: defaultdict[str, list[str]] = defaultdict(list)
    for line in lines:
        about[line["note"]].append(f"{line['task']} {line['metric']}".removesuffix(" accuracy"))
    notes = [line["experiment_note"] for line in lines]
    notes += [
        f"{first['label']}, {where[0] if len(where) == 1 else f'{len(where)} numbers'}: {note}."
        for note, where in about.items()
        if note
    ]
    return Row(
        **{name: first[name] for name in ("method", "label", "source", "source_id", "suite")},
        tables=tuple(dict.fromkeys(line["tables"] for line in lines)),
        backbone=first["backbone"],
        pretraining=first["pretraining"],
        tags={tag: first[tag] for tag in _TAGS},
        params_millions=math.fsum(sizes) / len(sizes) if sizes else math.nan,
        printed=printed,
        notes=tuple(dict.fromkeys(note for note in notes if note)),
    )
