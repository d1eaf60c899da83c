"""Settings of a method that somebody chose task by task, one file each, found by file name.

`convpass.released.toml` is the preset convpass.released of the method convpass. It says where
its numbers are from (`source`), how they were chosen (`chosen`), and has one table per suite,
task -> settings. A preset of one's own is such a file anywhere: `--preset ./convpass.mine.toml`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from petlbench import method, toml
from petlbench.errors import UsageError, unknown


@dataclass(frozen=True)
class Preset:
    """The content of one file. `chosen` continues "settings were chosen ..." on leaderboards."""

    name: str
    source: str
    chosen: str
    suites: Mapping[str, Mapping[str, Mapping[str, Any]]]  # suite -> task -> settings

    @property
    def method(self) -> str:
        return self.name.partition(".")[0]

    @property
    def row(self) -> str:
        """What its row on a leaderboard is called: convpass[released]."""
        return f"{self.method}[{self.name.partition('.')[2]}]"

    @property
    def summary(self) -> str:
        """Suites, tasks and settings in one line, and how they were chosen."""
        parts = []
        for suite, tasks in self.suites.items():
            fields = dict.fromkeys(field for settings in tasks.values() for field in settings)
            parts.append(f"{', '.join(fields)} for {len(tasks)} tasks of {suite}")
        return f"{'; '.join(parts)}; chosen {self.chosen} ({self.source})"

    def of(self, suite: str, tasks: Sequence[str]) -> list[Mapping[str, Any]]:
        """The settings of each of these tasks; refuses, before anything runs, what it lacks."""
        known = self.suites.get(suite)
        if known is None:
            raise UsageError(
                f"preset {self.name} has no settings for suite {suite} (tasks "
                f"{', '.join(tasks)}), only for {', '.join(self.suites)}."
            )
        if missing := [task for task in tasks if task not in known]:
            there = [task for task in tasks if task in known]
            hint = f" Run what it names: --tasks {','.join(there)}" if there else ""
            raise UsageError(
                f"preset {self.name} has no settings for {', '.join(missing)} of suite "
                f"{suite}; it names {', '.join(known)}.{hint}"
            )
        return [known[task] for task in tasks]


def builtin() -> dict[str, Path]:
    """Name -> file."""
    return {p.stem: p for p in sorted((method.folder() / "presets").glob("*.toml"))}


def load(reference: str) -> Preset:
    """The preset of that name, or in that file."""
    path = Path(reference).expanduser() if reference.endswith(".toml") else None
    if path is None and reference not in builtin():
        hint = "Your own: give its file, as in --preset ./convpass.mine.toml."
        raise unknown("preset", reference, builtin(), hint)
    return read(path or builtin()[reference])


def read(path: Path) -> Preset:
    if not all(path.stem.partition(".")):
        raise UsageError(f"{path}: a preset's file is called METHOD.NAME.toml.")
    values = toml.read(path, f"preset {path}")
    told = {key: values.pop(key, None) for key in ("source", "chosen")}
    for key, value in told.items():
        if not isinstance(value, str) or not value:
            raise UsageError(f'preset {path}: say {key} = "...", the first thing a reader asks.')
    tables = [entry for suite in values.values() for entry in _tables(suite)]
    if not tables or not all(isinstance(entry, Mapping) for entry in tables):
        raise UsageError(
            f"preset {path}: below source and chosen it has a table per suite, with one line per "
            "task: [vtab-1k] and cifar = { scale = 0.1 }"
        )
    return Preset(path.stem, **told, suites=values)


def _tables(suite: Any) -> list[Any]:
    return list(suite.values()) if isinstance(suite, Mapping) else [suite, None]
