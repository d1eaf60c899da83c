"""Tasks and suites: declarations, found by file name in `suites/`."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from petlbench.data.split import Split
from petlbench.errors import UsageError, unknown


@dataclass(frozen=True)
class Task:
    """One dataset with its splits, and what is asked of it."""

    name: str
    group: str
    classes: int
    sizes: Mapping[str, int]
    """Images per split, as published."""
    description: str = ""
    aliases: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    """In the order of the labels, as they stand in a text; where they are known for certain."""
    problem: str = "classification"
    """A module of `problems/`: what is trained and measured."""
    metric: str = ""
    """What ranks; one of the problem's metrics, by default its first."""
    ordinal: bool = False
    """Whether labels are grades, so that near misses differ from far ones."""
    targets: tuple[Target, ...] = ()
    """What else the trained model is tested on; each is a task of its own on the leaderboard."""


@dataclass(frozen=True)
class Target:
    """Another test split of a task: domain generalisation."""

    name: str
    group: str
    split: str
    among_present: bool = False
    """Whether only classes that occur in the split can be predicted (200-way, not 1000-way)."""


@dataclass(frozen=True)
class Suite:
    """A named set of tasks, the protocol it is run under, and how a split of a task is opened."""

    name: str
    description: str
    protocol: str
    backbone: str
    tasks: tuple[Task, ...]
    open_split: Callable[[Task, str, Path | None, int], Split]
    """(task, split name, data root, seed) -> Split; raises UsageError naming what is missing.

    Where there are several lists or folds, the seed says which one is trained on.
    """
    discover: Callable[[Path | None], tuple[Task, ...]] | None = None
    """Data root -> tasks, where only the data tell what they are."""
    ranking: str = "mean of groups"
    """What ranks: "mean of groups", "mean of tasks", or the name of one group."""
    report: tuple[str, ...] = ()
    """Metrics beside the tasks' own that a leaderboard has columns for."""
    needs_data_root: bool = False
    methods: tuple[str, ...] = ("convpass", "adapter", "lora", "vpt", "full", "linear")
    """What `petlbench run` compares when it is not told what to."""

    def at(self, root: Path | None) -> Suite:
        """The suite with the tasks that it has in that data root."""
        return replace(self, tasks=self.discover(root), discover=None) if self.discover else self

    def select(self, names: list[str] | None) -> list[Task]:
        """The tasks of these names (or aliases), in the suite's order; all of them by default."""
        if names is None:
            return list(self.tasks)
        if not names:
            raise UsageError(f"no tasks given; suite {self.name} has: --tasks {self.tasks[0].name}")
        known = {alias: task for task in self.tasks for alias in (task.name, *task.aliases)}
        for name in names:
            if name not in known:
                raise unknown(f"task of suite {self.name}", name, [t.name for t in self.tasks])
        chosen = {known[name].name for name in names}
        return [task for task in self.tasks if task.name in chosen]


def class_names(task: Task, root: Path | None) -> tuple[str, ...]:
    """What the classes are called: lines of `<root>/<task>/classes.txt`, or else the task's own.

    Raises UsageError that says what to write where.
    """
    file = (root or Path("DATA_ROOT")) / task.name / "classes.txt"
    names, source = task.class_names, f"the suite's {task.name}"
    if root and file.is_file():
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"{file} cannot be read: {error}") from error
        names, source = tuple(line.strip() for line in lines if line.strip()), str(file)
    if not names:
        raise UsageError(
            f"write the names of its {task.classes} classes to {file}, one a line, in the order "
            "of the labels."
        )
    if len(names) != task.classes:
        raise UsageError(f"{source} has {len(names)} class names; {task.classes} are needed.")
    return names


def suites() -> list[str]:
    """Names of the suites, by file name."""
    files = resources.files("petlbench.suites").iterdir()
    stems = (file.name.removesuffix(".py") for file in files if file.name.endswith(".py"))
    return sorted(stem.replace("_", "-") for stem in stems if not stem.startswith("_"))


def load_suite(name: str) -> Suite:
    if name not in suites():
        raise unknown("suite", name, suites())
    module = importlib.import_module(f"petlbench.suites.{name.replace('-', '_')}")
    suite = module.SUITE
    if not isinstance(suite, Suite) or suite.name != name:
        raise UsageError(
            f"suites/{name.replace('-', '_')}.py must define SUITE with name {name!r}."
        )
    return suite
