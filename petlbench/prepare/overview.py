"""Which data sets are there: every task of every suite that reads images from disk."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from petlbench.data.split import Split
from petlbench.errors import RunError, UsageError
from petlbench.task import Suite, Task, load_suite, suites

PREPARED = "vtab-1k"  # the suite whose tasks petlbench/prepare makes from original data sets


@dataclass(frozen=True)
class State:
    """What is there of one task."""

    suite: str
    task: str
    state: str
    """"present", "incomplete" or "missing"."""
    detail: str
    """What is missing, or nothing."""
    images: dict[str, int]
    """Split -> how many it lists."""
    bytes: int
    """Of the images that are listed and there, each file once."""
    lineage: str
    licence: str
    source: str


def on_disk(name: str | None = None) -> list[Suite]:
    """The suites that read from disk, or the one of that name; UsageError if it does not."""
    found = [load_suite(each) for each in ([name] if name else suites())]
    found = [suite for suite in found if suite.needs_data_root]
    if not found:
        raise UsageError(f"suite {name} is inside the package: there is nothing to prepare for it.")
    return found


def preparable(name: str) -> Suite:
    """The suite of that name, if `petlbench data prepare` can make its folders."""
    suite = load_suite(name)
    if name != PREPARED:
        raise UsageError(
            f"only {PREPARED} can be prepared: petlbench data prepare {PREPARED}. What {name} "
            f"lacks is told by: petlbench data list {name}"
        )
    return suite


def states(suite: Suite, root: Path | None) -> list[State]:
    """Every task of the suite. Lists are read and file names looked up, no image is opened."""
    try:
        tasks = suite.at(root).tasks
    except (UsageError, RunError) as error:
        return [State(suite.name, "?", "missing", _sentence(error), {}, 0, "", "", "")]
    return [_state(suite, task, root) for task in tasks]


def present(suite: Suite, names: list[str] | None, root: Path | None) -> list[Task]:
    """The tasks of these names, or all of which anything is there.

    Raises UsageError naming what is missing, if it was asked for or nothing is there.
    """
    suite = suite.at(root)
    tasks = suite.select(names)
    found = {task.name: _state(suite, task, root) for task in tasks}
    missing = [f"{each.task}: {each.detail}" for each in found.values() if each.state == "missing"]
    if missing and (names is not None or len(missing) == len(tasks)):
        raise UsageError("there is nothing of\n  " + "\n  ".join(missing))
    return [task for task in tasks if found[task.name].state != "missing"]


def _state(suite: Suite, task: Task, root: Path | None) -> State:
    opened: dict[str, Split] = {}
    reasons: list[str] = []
    for split in task.sizes:
        try:
            opened[split] = suite.open_split(task, split, root, 0)
        except (UsageError, RunError) as error:
            reasons.append(_sentence(error))
    sizes = _sizes(file for split in opened.values() for file in split.files)
    absent = [file for file, size in sizes.items() if size is None]
    if absent:
        reasons.append(f"{len(absent):,} images are not there: {absent[0]}")
    state = "incomplete" if reasons else "present"
    if not opened or (sizes and len(absent) == len(sizes)):
        state = "missing"
    licence, source = _origin(suite, task)
    return State(
        suite=suite.name,
        task=task.name,
        state=state,
        detail=reasons[0] if reasons else "",
        images={split: len(each) for split, each in opened.items()},
        bytes=sum(size or 0 for size in sizes.values()),
        lineage=", ".join(sorted({each.lineage for each in opened.values() if each.lineage})),
        licence=licence,
        source=source,
    )


def _sizes(files: Iterable[Path]) -> dict[str, int | None]:
    """File -> bytes, None if it is not there; one look at each folder is enough for all in it."""
    folders: dict[str, dict[str, int]] = {}
    sizes: dict[str, int | None] = {}
    for file in map(str, files):
        folder, name = os.path.split(file)
        if folder not in folders:
            folders[folder] = _listing(folder)
        sizes[file] = folders[folder].get(name)
    return sizes


def _listing(folder: str) -> dict[str, int]:
    try:
        with os.scandir(folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}
    except OSError:
        return {}


def _origin(suite: Suite, task: Task) -> tuple[str, str]:
    """Licence and name of the original data set, where petlbench makes the task from it."""
    if suite.name != PREPARED:
        return "", ""
    from petlbench.prepare import source_of

    source = source_of(task.name)
    return source.LICENCE, source.TITLE


def _sentence(error: Exception) -> str:
    """The first sentence of an error, without the period."""
    line = str(error).strip().splitlines()[0]
    return line.partition(". ")[0].removesuffix(".")


def reasons(found: Sequence[State]) -> list[str]:
    """What is missing, once for all tasks of which it can be said in the same words."""
    grouped: dict[str, list[State]] = {}
    for each in found:
        if each.detail:
            words = each.detail.replace(f"{os.sep}{each.task}", f"{os.sep}<task>")
            grouped.setdefault(words, []).append(each)
    return [
        f"{', '.join(each.task for each in same)}: {words if len(same) > 1 else same[0].detail}"
        for words, same in grouped.items()
    ]
