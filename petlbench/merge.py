"""Results of several machines or people, in one folder.

A source is a results folder, a folder of such folders, or a file with a record on each line. All
sources and the folder itself are compared before anything is written; they stay as they are, and
what is written is there whole or not at all, so that the same call goes on after an interruption.
"""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from petlbench import leaderboard
from petlbench.errors import UsageError
from petlbench.record import Record
from petlbench.store import Store, copy, read_file, read_lines, unwritable

LINES = "records.jsonl"  # of committed results


class Conflict(UsageError, ValueError):
    """Two sources say different things about one run."""


@dataclass(frozen=True)
class Found:
    """A record, and where it was read."""

    record: Record
    file: Path


@dataclass(frozen=True)
class Merged:
    """What is in the folder now of all sources, and how much of it was not there before."""

    finished: int
    failed: int
    trials: int
    artifacts: int
    new: int
    problems: tuple[str, ...]  # a sentence for each file that was left out


def merge(
    sources: Sequence[Path],
    into: Path,
    on_step: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Merged:
    """Copy records, trials and what is kept beside records of all `sources` into a results folder.

    A run that finished anywhere is finished. Of one that only failed the latest failure is kept,
    of a trial the one that is met first: searches of several seeds make the same, and what each
    found is in its records.

    Raises:
        Conflict: A run finished with different records or files, or is there under two keys.
        UsageError: A source has no results, or the folder cannot be written.
    """
    target, problems = Store(into), []
    # the folder first: what is the same elsewhere counts as found there
    folders = [into] if target.records.is_dir() else []
    places = list(dict.fromkeys([*folders, *_places(sources)]))
    stores = [Store(place) for place in places if place.is_dir()]
    runs: dict[str, Found] = {}
    trials: dict[str, Found] = {}
    for record, file, problem in _everything(places):
        if record is None:
            problems.append(problem)
        elif file.parent.name == "trials":
            trials.setdefault(record["key"], Found(record, file))
        else:
            runs[record["key"]] = _latest(runs.get(record["key"]), Found(record, file))
    if not runs:
        told = "".join(f"\n{problem}" for problem in problems)
        where = ", ".join(map(str, sources))
        raise UsageError(f"no run in {where}: run something first (petlbench run).{told}")
    _refuse_two_keys(runs.values())
    leaderboard.build(found.record for found in runs.values())  # refuses mixed data
    artifacts = _artifacts(stores, runs)

    target.require_writable()
    there = (target.records, target.failed, target.trials)
    new_files = [file for file in artifacts if file.parent != target.artifacts]
    new_trials = [each.record for each in trials.values() if each.file.parent not in there]
    new_runs = [each.record for each in runs.values() if each.file.parent not in there]
    steps: list[Callable[[], None]] = [
        *(partial(copy, file, target.artifacts / file.name) for file in new_files),
        *(partial(target.write_trial, record) for record in new_trials),
        *(partial(target.write, record) for record in new_runs),  # last: then it is finished
    ]
    try:
        for done, step in enumerate(steps, start=1):
            step()
            on_step("merging", done, len(steps))
    except OSError as error:
        raise unwritable(into, error) from error
    statuses = [found.record["status"] for found in runs.values()]
    return Merged(
        finished=statuses.count("done"),
        failed=statuses.count("failed"),
        trials=len(trials),
        artifacts=len(artifacts),
        new=len(steps),
        problems=tuple(problems),
    )


def _places(sources: Sequence[Path]) -> Iterator[Path]:
    """Results folders, and files of records where those are all there is."""
    for source in sources:
        folders = [source, *sorted(source.glob("*/"))]
        stores = [folder for folder in folders if (folder / "records").is_dir()]
        lines = [folder / LINES for folder in folders if folder not in stores]
        found = [source] if source.is_file() else [*stores, *filter(Path.is_file, lines)]
        if not found:
            raise UsageError(
                f"no results in {source}: give a results folder, a folder of such folders, or a "
                f"{LINES}."
            )
        yield from found


def _everything(places: Iterable[Path]) -> Iterator[tuple[Record | None, Path, str]]:
    """Every record with its file, or why there is none."""
    for place in places:
        if place.is_file():
            yield from ((record, place, problem) for record, problem in read_lines(place))
        else:
            store = Store(place)
            for folder in (store.records, store.failed, store.trials):
                for file in sorted(folder.glob("*.json")):
                    record, problem = read_file(file)
                    yield record, file, problem


def _latest(known: Found | None, found: Found) -> Found:
    """Of two records of one run the one that counts: finished before failed, then the later."""
    if known is None or known.record == found.record:
        return known or found
    both = (known.record, found.record)
    if all(record["status"] == "done" for record in both):
        names = sorted(set(both[0]) | set(both[1]))
        differ = [name for name in names if both[0].get(name) != both[1].get(name)]
        raise Conflict(
            f"{_run(found.record)} finished twice, in {known.file} and in {found.file}, which "
            f"differ in {', '.join(differ)}. Move the one that should not count out of its folder."
        )
    return max(
        known, found, key=lambda f: (f.record["status"] == "done", f.record.get("started", ""))
    )


def _refuse_two_keys(runs: Iterable[Found]) -> None:
    """The same row, task and seed of one comparison under another key: another setting or split."""
    seen: dict[tuple[Any, ...], Found] = {}
    for found in runs:
        spec = found.record["spec"]
        row = (spec["method"]["label"], spec["method"]["source"])
        place = (found.record["fingerprint"], *row, spec["task"], spec["seed"])
        other = seen.setdefault(place, found)
        if other is not found:
            raise Conflict(
                f"{_run(found.record)} is there under two keys, in {other.file} and in "
                f"{found.file}: settings or images differ. Move the one that should not count out "
                "of its folder."
            )


def _run(record: Record) -> str:
    spec = record["spec"]
    return f"{spec['method']['label']} on {spec['task']} seed {spec['seed']}"


def _artifacts(stores: Iterable[Store], runs: Mapping[str, Found]) -> list[Path]:
    """What is kept beside finished runs, each once; the same name must hold the same."""
    found: dict[str, Path] = {}
    for store in stores:
        for file in sorted(store.artifacts.glob("[!.]*")):
            run = runs.get(file.name.split(".")[0])
            if run is None or run.record["status"] != "done":
                continue
            other = found.setdefault(file.name, file)
            if other is not file and not filecmp.cmp(other, file, shallow=False):
                raise Conflict(
                    f"{_run(run.record)}: {other} and {file} differ. Move the one that should not "
                    "count out of its folder."
                )
    return list(found.values())
