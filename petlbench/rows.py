"""The methods of a request: rows of the leaderboard, each with its settings for every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from petlbench import method, presets, search, settings
from petlbench.errors import UsageError, unknown
from petlbench.protocol import Protocol
from petlbench.request import Request
from petlbench.task import Suite, Task

Choice = tuple[method.MethodSpec, dict[str, Any] | None]  # and RunSpec.search


def read(
    request: Request, rules_of: Protocol, suite: Suite, tasks: Sequence[Task]
) -> list[dict[str, Choice]]:
    """One row of the leaderboard each: task -> method with its settings, and what is searched."""
    asked = request.methods or suite.methods
    tables = [{"name": m} if isinstance(m, str) else dict(m) for m in asked]
    for table in tables:
        if not isinstance(table.get("name"), str):
            raise UsageError(f"a method table needs a name: {table}")
    names = [Path(t["name"]).stem if method.is_path(t["name"]) else t["name"] for t in tables]
    wanted: dict[str, dict[str, Any]] = {}
    for key, value in request.settings.items():
        owner, _, name = key.partition(".")
        if owner != "protocol":
            if owner not in names:
                hint = f"{owner} is not among the methods of this run." if owner else ""
                raise unknown("name in --set", owner or key, ["protocol", *names], hint)
            wanted.setdefault(owner, {})[name] = value
    chosen: dict[str, list[presets.Preset]] = {}
    of_protocol = [preset for preset in rules_of.presets if preset.split(".")[0] in names]
    for preset in map(presets.load, request.presets or of_protocol):
        if preset.method not in names:
            raise UsageError(
                f"preset {preset.name} is for {preset.method}, which is not among the methods of "
                f"this run: --methods {','.join([*names, preset.method])}"
            )
        chosen.setdefault(preset.method, []).append(preset)
    rows: list[dict[str, Choice]] = []
    for table, name in zip(tables, names, strict=True):
        reference = table.pop("name")
        cls = method.load(reference)
        given = {
            key: settings.parse(cls, name, key, value) if isinstance(value, str) else value
            for key, value in wanted.get(name, {}).items()
        }
        explicit = {**table, **given}  # wins over a preset
        if name in chosen:
            for preset in chosen[name]:
                rows.append(_preset_row(request, reference, preset, explicit, suite, tasks))
        else:
            choice = _choice(request, reference, explicit)
            rows.append(dict.fromkeys((t.name for t in tasks), choice))
    firsts = [next(iter(row.values()))[0] for row in rows]
    for i, spec in enumerate(firsts):
        for other in firsts[:i]:
            if other.label == spec.label and other.reference == spec.reference:
                raise UsageError(f"method {spec.label} is given twice.")
            if other.label == spec.label:
                raise UsageError(
                    f"{other.reference} and {spec.reference} would both be called {spec.label} on "
                    "the leaderboard; rename the file."
                )
    return rows


def _choice(request: Request, reference: str, values: Mapping[str, Any]) -> Choice:
    """A method with settings that were chosen; the others are searched, where that is asked for."""
    spec = method.specify(reference, dict(values))
    if request.search is None:
        return spec, None
    return spec, search.declare(
        request.search, request.sampler, spec.reference, spec.name, set(values)
    )


def _preset_row(
    request: Request,
    reference: str,
    preset: presets.Preset,
    explicit: Mapping[str, Any],
    suite: Suite,
    tasks: Sequence[Task],
) -> dict[str, Choice]:
    """Task -> method with the preset's settings; `explicit` ones win and are told in the label."""
    told = f"({', '.join(f'{key}={value}' for key, value in explicit.items())})" if explicit else ""
    note = {"name": preset.name, "chosen": preset.chosen, "source": preset.source}
    row = {}
    names = [task.name for task in tasks]
    for name, values in zip(names, preset.of(suite.name, names), strict=True):
        try:
            spec, searched = _choice(request, reference, {**values, **explicit})
        except UsageError as error:
            raise UsageError(f"preset {preset.name}, task {name}: {error}") from None
        row[name] = replace(spec, label=f"{preset.row}{told}", preset=note), searched
    return row
