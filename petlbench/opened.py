"""The lists of images that a request rests on: opened and compared before anything runs.

What a list consists of (SHA-256 of its members) and how its images came about go into a run's
identity; sizes into estimates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from petlbench import search
from petlbench.data.split import Split
from petlbench.errors import UsageError
from petlbench.judged import Good
from petlbench.spec import RunSpec
from petlbench.store import Store
from petlbench.task import Suite, Task, class_names

Members = dict[tuple[str, int], dict[str, str]]
Sizes = dict[str, tuple[int, int]]


def read(
    suite: Suite,
    tasks: Sequence[Task],
    splits: tuple[str, str],
    choosing: tuple[str, ...],
    root: Path | None,
    seeds: range,
) -> tuple[Members, Sizes, Sizes, dict[str, str]]:
    """(task, seed) -> split -> SHA-256 of its members; and per task the sizes of training and test
    split, those of the splits `choosing` of a search, and the lineage of its images.

    Test splits are the same for every seed, and trials are of seed 0. Reports every task that
    cannot be read at once.
    """
    if suite.needs_data_root and root is None:
        raise UsageError(
            f"suite {suite.name} reads images from disk: give --data-root DIR or set "
            "PETLBENCH_DATA."
        )
    found, sizes, trial_sizes, lineage, wrong = {}, {}, {}, {}, []
    for task in tasks:
        try:
            trainings = [suite.open_split(task, splits[0], root, seed) for seed in seeds]
            tests = [splits[1], *(target.split for target in task.targets)]
            opened = [suite.open_split(task, name, root, 0) for name in dict.fromkeys(tests)]
            searched = [suite.open_split(task, name, root, 0) for name in choosing]
            trial = _trial_members(task, searched, opened) if searched else {}
            for seed, training in zip(seeds, trainings, strict=True):
                _refuse_shared(task, training, opened)
                found[task.name, seed] = {s.name: s.members for s in (training, *opened)} | trial
                if training.manifest:
                    found[task.name, seed]["manifest"] = training.manifest
            examples = max(len(training), len(training.texts))
            sizes[task.name] = (examples, len(opened[0]))
            if searched:
                examples = max(len(searched[0]), len(searched[0].texts))
                trial_sizes[task.name] = (examples, len(searched[1]))
            lineage[task.name] = training.lineage if training.lineage != "unknown" else ""
        except UsageError as error:
            wrong.append(f"  {task.name}: {error}")
    if wrong:
        hint = f"\nRun what is there: --tasks {','.join(sizes)}" if sizes else ""
        raise UsageError(
            f"{len(wrong)} of {len(tasks)} tasks of {suite.name} cannot be read:\n"
            + "\n".join(wrong)
            + hint
        )
    return found, sizes, trial_sizes, lineage


def sketch(
    suite: Suite,
    tasks: Sequence[Task],
    splits: tuple[str, str],
    choosing: tuple[str, ...],
    root: Path | None,
    seeds: range,
) -> tuple[Members, Sizes, Sizes, dict[str, str]]:
    """The same for a sketch: no members, and the sizes as published."""
    sizes = {task.name: (task.sizes[splits[0]], task.sizes[splits[1]]) for task in tasks}
    trial_sizes = {}
    for task in tasks if choosing else ():
        for split in choosing:
            if split not in task.sizes:
                raise UsageError(f"{task.name} has no split {split}, which a search needs.")
        trial_sizes[task.name] = (task.sizes[choosing[0]], task.sizes[choosing[1]])
    members: Members = {(name, seed): {} for name in sizes for seed in seeds}
    return members, sizes, trial_sizes, dict.fromkeys(sizes, "")


def _trial_members(task: Task, searched: Sequence[Split], tests: Sequence[Split]) -> dict[str, str]:
    """Members of what trials train on and are judged on. Refuses to choose on test images."""
    training, judging = searched
    _refuse_shared(task, training, [judging, *tests])
    _refuse_shared(task, judging, tests)
    for split in searched:
        for test in tests:
            if split.members == test.members:
                raise UsageError(
                    f"{task.name}: a search would choose on {split.name}, which has the images of "
                    f"{test.name}; set protocol.search_train_split and protocol.search_val_split."
                )
    members = {split.name: split.members for split in searched}
    members |= {"manifest": training.manifest} if training.manifest else {}
    return {f"{search.PREFIX}{name}": value for name, value in members.items()}


def _refuse_shared(task: Task, training: Split, tests: Sequence[Split]) -> None:
    """No patient, or whatever else images share, on both sides."""
    for test in tests:
        shared = sorted(set(training.groups) & set(test.groups))
        if shared:
            raise UsageError(
                f"{task.name}: {len(shared)} groups have images both in {training.name} and in "
                f"{test.name}, {shared[0]!r} for one; a group must lie on one side."
            )


def refuse_other(store: Store, specs: Sequence[RunSpec], recorded: Mapping[str, Good]) -> None:
    """Whose lists changed since they were recorded under the same fingerprint, before training."""
    planned = {(spec.fingerprint, spec.task, spec.seed): spec for spec in specs}
    for key, told in recorded.items():
        spec = planned.get((told.fingerprint, told.task, told.seed))
        if spec and any(spec.members.get(n, m) != m for n, m in told.members.items()):
            raise UsageError(
                f"the images of {spec.task}, or the lists of them, are not those of run {key} in "
                f"{store.folder}; numbers on different data do not go into one comparison. Give "
                "another folder (--results DIR), or move the old records away."
            )


def class_names_of(
    tasks: Sequence[Task], root: Path | None, sketch: bool
) -> dict[str, tuple[str, ...]]:
    """Task -> names of its classes, for prompts; a sketch makes up those that are not known."""
    found, problems = {}, []
    for task in tasks:
        try:
            found[task.name] = class_names(task, root)
        except UsageError as error:
            found[task.name] = tuple(f"class {index}" for index in range(task.classes))
            problems.append(f"  {task.name}: {error}")
    if problems and not sketch:
        raise UsageError(
            "protocol.head = 'text' makes the head from class names:\n" + "\n".join(problems)
        )
    return found


def subsets(
    tasks: Sequence[Task], sizes: Mapping[str, tuple[int, int]], rules: Mapping[str, Any]
) -> list[str]:
    """A sentence for each task whose test split is not the published one."""
    return [
        f"{task.name}: {sizes[task.name][1]:,} of {task.sizes[rules['test_split']]:,} published "
        "test images are there; the numbers are for this subset."
        for task in tasks
        if task.sizes.get(rules["test_split"], 0) not in (0, sizes[task.name][1])
    ]
