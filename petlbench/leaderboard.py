"""Records in, ranked tables out; nothing is ever ranked across protocol fingerprints.

The rules, in the order a reviewer would ask for them:

- A cell is the task's own metric on the test set, a fraction in [0, 1]; of classification it is
  accuracy, correct / total. Another metric makes another table (`metric`).
- *Mean of tasks* is the mean over all tasks. *Mean of groups* is the mean over groups of each
  group's mean over its tasks. The suite says which of them ranks, or which group's mean does;
  equal ones share a rank (1, 1, 3).
- A run that was tested on several sets (domain generalisation) is a task for each of them.
- *Peek gap* is the best test score over training minus the reported one: what choosing the epoch
  on the test set would have added.
- Seeds are paired: a mean is first taken within each seed, then averaged over seeds, and its
  spread is the sample standard deviation (ddof = 1) of those per-seed means; none with one seed.
- A board's tasks and seeds are all those that any of its records tried, finished or failed.
- A row is complete, and ranked, when no run of it failed and at least one seed finished every
  task. All its cells are then taken over exactly the seeds that finished every task, so that the
  means are the means of the tasks shown. With fewer seeds than the board it stays ranked (fewer
  seeds make a mean noisier, not biased) but a note says so.
- Parameters of a row are the mean over tasks. Where a preset gives tasks different sizes, the
  range stands beside it, and a note adds the mean of groups, which papers also print.
- Any other row is incomplete: it has no rank and no cell that would average over what happens to
  be there. A failed run empties its task even if other seeds finished: leaving out the seed that
  diverged would flatter the method.
"""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from petlbench.errors import UsageError, unknown

Record = Mapping[str, Any]
OWN = "the task's own metric"  # the metric of a board whose tasks have different ones


class DuplicateRuns(UsageError, ValueError):
    """Two different records claim to be the same run."""


class MixedData(UsageError, ValueError):
    """Records that should share their data do not: their numbers cannot be compared."""


@dataclass(frozen=True)
class Score:
    """A metric in [0, 1]: mean over seeds, sample standard deviation (None with one seed).

    `low` and `high` bound its 95% interval on the tasks at hand, `best` says that it cannot be
    told apart from the best of its column; None before `statistics.judge` has looked.
    """

    mean: float
    std: float | None
    low: float | None = None
    high: float | None = None
    best: bool | None = None


@dataclass(frozen=True)
class Row:
    """One method. What cannot be said without averaging over gaps is None."""

    method: str
    rank: int | None
    complete: bool
    seeds: tuple[int, ...]  # finished on every task
    mean_of_groups: Score | None
    mean_of_tasks: Score | None
    groups: Mapping[str, Score | None]
    tasks: Mapping[str, Score | None]
    trainable_parameters: int | None  # without head; mean over tasks where they differ
    trainable_parameters_with_head: int | None  # mean over tasks
    train_seconds: float | None  # sum over tasks, mean over seeds
    peak_bytes: int | None  # largest over runs; None unless every run measured it
    stored_bytes: int | None  # largest over tasks
    missing: tuple[str, ...]  # runs the board has and this row lacks, with the reason
    trainable_parameters_min: int | None = None  # over tasks
    trainable_parameters_max: int | None = None
    trainable_parameters_mean_of_groups: int | None = None
    ranking: Score | None = None  # what ranks: one of the above
    metrics: Mapping[str, Score] = field(default_factory=dict)  # mean of tasks of every metric
    peek_gap: Score | None = None  # mean of tasks
    runs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # task -> keys of its cell
    letters: str = ""  # rows that share one cannot be told apart; none before statistics.judge
    as_good_as_best: bool | None = None  # cannot be told apart from the best row
    over_tasks: tuple[float, float] | None = None  # what ranks, were the tasks drawn anew: 95%
    # Costs that records of earlier versions do not tell are None.
    inference_parameters: int | None = None  # beside backbone and head, merged; mean over tasks
    added_flops: float | None = None  # per image, merged; mean over tasks
    mean_peak_bytes: float | None = None  # mean over runs
    shared_bytes: int | None = None  # of the backbone, in 32 bits: what no task stores anew
    served_bytes: int | None = None  # all of the tasks served, see `serve`
    efficiency: Mapping[str, float | None] = field(default_factory=dict)  # see efficiency.add


@dataclass(frozen=True)
class Leaderboard:
    """Rows that may be compared: one suite, one backbone, one protocol fingerprint."""

    suite: str
    fingerprint: str
    backbone: Mapping[str, Any]
    protocol: Mapping[str, Any]
    groups: Mapping[str, tuple[str, ...]]  # group -> its tasks
    seeds: tuple[int, ...]
    records: int
    rows: tuple[Row, ...]  # ranked ones first
    notes: tuple[str, ...]
    ranking: str = "mean of groups"  # what ranks
    metric: str = "accuracy"  # what the cells are
    report: tuple[str, ...] = ()  # further metrics worth a column
    judged: str = ""  # how intervals and letters were made, in words
    tasks_served: int = 0  # asked for by `serve`
    efficiency: Mapping[str, str] = field(default_factory=dict)  # name -> formula

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks, group by group."""
        return tuple(task for tasks in self.groups.values() for task in tasks)


def build(
    records: Iterable[Record],
    task_order: Sequence[str] = (),
    ranking: str = "mean of groups",
    report: tuple[str, ...] = (),
    metric: str | None = None,
) -> list[Leaderboard]:
    """One leaderboard per suite, fingerprint and backbone; the one with most records first."""
    return [rank(each, task_order, ranking, report, metric) for each in comparable(records)]


def comparable(records: Iterable[Record]) -> list[list[Record]]:
    """Records that one board may hold together, the largest group first."""
    boards: defaultdict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record in records:
        spec = record["spec"]
        backbone = json.dumps(spec["backbone"], sort_keys=True)
        boards[spec["suite"], record["fingerprint"], backbone].append(record)
    return [each for _, each in sorted(boards.items(), key=lambda item: (-len(item[1]), item[0]))]


def tested(record: Record) -> list[Record]:
    """One record for each set that a run was tested on."""
    found = [record]
    for name, test in record.get("targets", {}).items():
        spec = {**record["spec"], "task": name, "group": test["group"]}
        data = {**record["data"], "test": test["data"], "test_images_in_training": 0}
        found.append({**record, "spec": spec, "test": test, "data": data})
    return found


def rank(
    runs_made: Sequence[Record],
    task_order: Sequence[str] = (),
    ranking: str = "mean of groups",
    report: tuple[str, ...] = (),
    metric: str | None = None,
) -> Leaderboard:
    """The board of `comparable` records.

    Groups and tasks come in `task_order`, what it does not name last and by the alphabet: files
    are named by hashes, so the order of records says nothing and does not matter. `ranking` is
    "mean of groups", "mean of tasks" or a group; `metric` one that is not the tasks' own.
    """
    records = [each for record in runs_made for each in tested(record)]
    # method -> (task, seed) -> record; sorted, so that a finished run comes before a failed one
    methods: defaultdict[tuple[str, str | None], dict[tuple[str, int], Record]] = defaultdict(dict)
    for record in sorted(records, key=lambda r: (r["key"], r["status"])):
        spec = record["spec"]
        runs = methods[spec["method"]["label"], spec["method"]["source"]]
        other = runs.setdefault((spec["task"], spec["seed"]), record)
        finished_twice = record["status"] == "done" and other != record
        if other["key"] != record["key"] or finished_twice:
            raise DuplicateRuns(
                f"{spec['method']['label']} on {spec['task']} seed {spec['seed']} is recorded "
                f"twice, as {other['key']} and {record['key']}, and the records differ. "
                "Move the one that should not count out of the results folder."
            )
    _refuse_mixed_data(records)

    groups = _groups(records, task_order)
    seeds = tuple(sorted({record["spec"]["seed"] for record in records}))
    versions: defaultdict[str, list[str | None]] = defaultdict(list)
    for label, source in methods:
        versions[label].append(source)
    rows = []
    unit = _unit(records, metric)
    chosen: defaultdict[str, list[str]] = defaultdict(list)  # how -> rows of presets
    for (label, source), runs in methods.items():
        name = f"{label}@{source[:6]}" if source and len(versions[label]) > 1 else label
        rows.append(_row(name, runs, groups, seeds, ranking, unit))
        if preset := next(iter(runs.values()))["spec"]["method"].get("preset"):
            chosen[preset["chosen"]].append(name)
    spec = min(records, key=lambda record: str(record["key"]))["spec"]
    rows = _rank(rows)
    return Leaderboard(
        suite=spec["suite"],
        fingerprint=records[0]["fingerprint"],
        backbone=spec["backbone"],
        protocol=spec["protocol"],
        groups=groups,
        seeds=seeds,
        records=len(runs_made),
        rows=tuple(rows),
        ranking=ranking,
        metric=unit,
        report=tuple(name for name in report if name != unit),
        notes=(
            *_search(spec),
            *_overlap(records),
            *_notes(rows, seeds, [la for la, s in versions.items() if len(s) > 1]),
            *(f"Settings of {_list(names)} were chosen {how}." for how, names in chosen.items()),
        ),
    )


def _unit(records: Iterable[Record], metric: str | None) -> str:
    """The metric of the cells; a name that no record has is refused."""
    done = [record["test"] for record in records if record["status"] == "done"]
    own = [test.get("metric", "accuracy") for test in done]
    if metric is None:
        return own[0] if len(set(own)) == 1 else OWN
    known = set.intersection(*(set(metrics(test)) for test in done)) if done else set()
    if metric not in known:
        raise unknown("metric", metric, known, "(Only what every record has can be shown.)")
    return metric


def _search(spec: Mapping[str, Any]) -> list[str]:
    search = spec.get("search")
    if not search:
        return []
    rules = spec["protocol"]
    return [
        f"Settings of every method were chosen by {search['trials']} trials per task "
        f"({search['sampler']}), trained on {rules['search_train_split']} and judged on "
        f"{rules['search_val_split']}; then it was trained on {rules['train_split']}."
    ]


def _overlap(records: Iterable[Record]) -> list[str]:
    """Which tasks have test images that are also training images."""
    found = {}
    for record in records:
        if record["status"] == "done" and record["data"].get("test_images_in_training"):
            shared = record["data"]["test_images_in_training"]
            found[record["spec"]["task"]] = (shared, record["test"]["total"])
    return [
        f"{task}: {shared} of {total} test images are also training images, pixel by pixel."
        for task, (shared, total) in sorted(found.items())
    ]


def _refuse_mixed_data(records: Iterable[Record]) -> None:
    seen: dict[tuple[str, str], tuple[str, str]] = {}  # what -> digest, key of the first record
    for record in records:
        if record["status"] != "done":
            continue
        task, data = record["spec"]["task"], record["data"]
        # Few-shot suites draw other training images for each seed; test images are always one set.
        seed = record["spec"]["seed"]
        for what, digest in (("test", data["test"]), (f"seed {seed} training", data["train"])):
            first, key = seen.setdefault((task, what), (digest, record["key"]))
            if first != digest:
                raise MixedData(
                    f"task {task!r}: its {what} data differ between records: {first[:12]} in "
                    f"{key}, {digest[:12]} in {record['key']}. Numbers on different data are not "
                    "comparable: move the records of one of them to another results folder."
                )


def _groups(records: Iterable[Record], task_order: Sequence[str]) -> dict[str, tuple[str, ...]]:
    group_of: dict[str, str] = {}
    for spec in (record["spec"] for record in records):
        if group_of.setdefault(spec["task"], spec["group"]) != spec["group"]:
            raise MixedData(
                f"task {spec['task']!r} is in group {group_of[spec['task']]!r} in some records and "
                f"in {spec['group']!r} in others: move one kind to another results folder."
            )
    place = {task: i for i, task in enumerate(task_order)}
    groups: defaultdict[str, list[str]] = defaultdict(list)
    for task in sorted(group_of, key=lambda t: (place.get(t, len(place)), group_of[t], t)):
        groups[group_of[task]].append(task)
    return {group: tuple(tasks) for group, tasks in groups.items()}


def _row(
    method: str,
    runs: Mapping[tuple[str, int], Record],
    groups: Mapping[str, tuple[str, ...]],
    seeds: tuple[int, ...],
    ranking: str,
    unit: str,
) -> Row:
    tasks = [task for members in groups.values() for task in members]
    done: dict[str, dict[int, Record]] = {task: {} for task in tasks}
    failed = set()
    for (task, seed), record in runs.items():
        if record["status"] == "done":
            done[task][seed] = record
        else:
            failed.add(task)

    def finished(tasks: Iterable[str]) -> list[int]:
        return sorted(set.intersection(*(set(done[task]) for task in tasks)))

    common = finished(tasks)
    complete = bool(common) and not failed

    value_of = partial(value, unit=unit)

    def score(
        parts: Collection[Sequence[str]], value: Callable[[Record], float] = value_of
    ) -> Score | None:
        """Mean over parts of each part's mean over its tasks, paired by seed."""
        members = [task for part in parts for task in part]
        if failed.intersection(members):
            return None
        per_seed = [
            _mean([_mean([value(done[task][seed]) for task in part]) for part in parts])
            for seed in (common if complete else finished(members))
        ]
        return Score(_mean(per_seed), _std(per_seed)) if per_seed else None

    finished_runs = [record for by_seed in done.values() for record in by_seed.values()]
    used = [done[task][seed] for task in tasks for seed in common] if complete else []
    bodies = [record["parameters"]["trainable"] for record in used or finished_runs]
    of_task = {r["spec"]["task"]: r["parameters"]["trainable"] for r in used}
    heads = [record["parameters"]["head"] for record in used]
    peaks = [record["peak_bytes"] for record in used]

    def cost(*path: str) -> float | None:
        """Its mean over the runs used; None unless every one of them tells it."""
        values = [_at(record, path) for record in used]
        return _mean(values) if values and None not in values else None

    seconds = {record["key"]: record["train_seconds"] for record in used}  # of each run once
    scores = {"mean of groups": score(groups.values()), "mean of tasks": score([tasks])}
    by_group = {group: score([members]) for group, members in groups.items()}
    of_metrics = {name: score([tasks], partial(value, unit=name)) for name in _shared_metrics(used)}
    peeked = [task for task in tasks if all("peek" in done[task][seed] for seed in common)]
    return Row(
        method=method,
        rank=None,
        complete=complete,
        seeds=tuple(common),
        mean_of_groups=scores["mean of groups"],
        mean_of_tasks=scores["mean of tasks"],
        groups=by_group,
        tasks={task: score([[task]]) for task in tasks},
        # what every finished run agrees on can be said of an incomplete row too
        trainable_parameters=round(_mean(bodies)) if used or len(set(bodies)) == 1 else None,
        trainable_parameters_with_head=round(_mean(bodies) + _mean(heads)) if used else None,
        train_seconds=math.fsum(seconds.values()) / len(common) if used else None,
        peak_bytes=max(peaks) if peaks and None not in peaks else None,
        stored_bytes=max((record["stored_bytes"] for record in used), default=None),
        missing=tuple(_missing(runs, tasks, seeds)),
        trainable_parameters_min=min(bodies) if used else None,
        trainable_parameters_max=max(bodies) if used else None,
        trainable_parameters_mean_of_groups=round(
            _mean([_mean([of_task[task] for task in members]) for members in groups.values()])
        )
        if used
        else None,
        ranking=(scores | by_group).get(ranking),
        inference_parameters=_whole(cost("inference", "parameters")),
        added_flops=cost("inference", "flops"),
        mean_peak_bytes=cost("peak_bytes"),
        shared_bytes=_whole(cost("shared_bytes")),
        metrics={name: found for name, found in of_metrics.items() if found},
        peek_gap=score([peeked], _peek_gap) if used and peeked else None,
        runs={
            task: tuple(done[task][seed]["key"] for seed in (common if complete else done[task]))
            for task in tasks
        },
    )


def _missing(
    runs: Mapping[tuple[str, int], Record], tasks: Sequence[str], seeds: Sequence[int]
) -> list[str]:
    tried_tasks, tried_seeds = {task for task, _ in runs}, {seed for _, seed in runs}
    missing = []
    for task in tasks:
        if task not in tried_tasks:
            missing.append(f"{task} (not run)")
            continue
        for seed in seeds:
            record = runs.get((task, seed))
            if record is None and seed in tried_seeds:
                missing.append(f"{task} seed {seed} (not run)")
            elif record is not None and record["status"] != "done":
                missing.append(f"{task} seed {seed} (failed: {record['error']['type']})")
    return missing + [f"seed {seed} (not run)" for seed in seeds if seed not in tried_seeds]


def _rank(rows: Iterable[Row]) -> list[Row]:
    """Ranked rows from the best, then incomplete ones by name."""

    def height(row: Row) -> float:  # rounded: the last bits of a float must not break a tie
        return round(row.ranking.mean, 9) if row.ranking else -math.inf

    ordered = sorted(rows, key=lambda row: (-height(row), row.method))
    heights = [height(row) for row in ordered]
    return [
        replace(row, rank=1 + heights.index(height(row)))  # the first of equal ones
        if row.complete and row.ranking
        else row
        for row in ordered
    ]


def _notes(rows: Sequence[Row], seeds: Sequence[int], edited: Sequence[str]) -> list[str]:
    notes = []
    fewer: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    for row in rows:
        if not row.complete:
            shown = ", ".join(row.missing[:4])
            more = f" and {len(row.missing) - 4} more" if len(row.missing) > 4 else ""
            notes.append(f"{row.method} is incomplete and not ranked: {shown}{more}.")
        elif len(row.seeds) < len(seeds):
            fewer[row.seeds].append(row.method)
    for some, names in fewer.items():
        notes.append(
            f"Not all {len(seeds)} seeds of this board finished every task, so ranked with more "
            f"noise (seed {_list(some)} alone): {', '.join(names)}."
        )
    if any(row.complete and len(row.seeds) == 1 for row in rows):
        notes.append("One seed gives no spread: small differences may be noise.")
    for row in rows:
        if row.trainable_parameters_min != row.trainable_parameters_max:
            low, high = map(compact, (row.trainable_parameters_min, row.trainable_parameters_max))
            notes.append(
                f"Parameters of {row.method} differ by task, from {low} to {high}: "
                f"{compact(row.trainable_parameters)} is the mean of tasks, "
                f"{compact(row.trainable_parameters_mean_of_groups)} the mean of groups."
            )
    names = [re.split(r"[\[(]", row.method)[0] for row in rows]
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            notes.append(
                f"{name} appears with {names.count(name)} settings: taking the best of them by "
                "this table would be tuning on the test set."
            )
    for label in sorted(edited):
        notes.append(f"{label} was run from several versions of its file: one row each.")
    return notes


def metrics(test: Mapping[str, Any]) -> Mapping[str, float]:
    """Every metric of a test; records of earlier versions hold counts alone."""
    return test.get("metrics") or {"accuracy": test["correct"] / test["total"]}


def metric_of(record: Record, unit: str) -> str:
    """That metric if the record has it, else its own: tasks may have different ones."""
    return unit if unit in metrics(record["test"]) else record["test"].get("metric", "accuracy")


def value(record: Record, unit: str) -> float:
    return float(metrics(record["test"])[metric_of(record, unit)])


def _shared_metrics(records: Sequence[Record]) -> list[str]:
    """What every one of them has, in the order of the first."""
    every = [metrics(record["test"]) for record in records]
    return [name for name in (every[0] if every else ()) if all(name in each for each in every)]


def _peek_gap(record: Record) -> float:
    curve, metric = record["peek"]["curve"], record["peek"]["metric"]
    return float(record["peek"]["best"] - curve[-1][metric])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _std(values: Sequence[float]) -> float | None:
    if len(values) < 2:
        return None
    mean = _mean(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))


def _at(record: Record, path: Sequence[str]) -> Any:
    value: Any = record
    for name in path:
        value = None if value is None else value.get(name)
    return value


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def serve(board: Leaderboard, tasks: int) -> Leaderboard:
    """With the bytes that a row takes to serve that many tasks: the backbone's once, a task's each.

    A method that stores the whole backbone for every task, as full fine-tuning does, shares none.
    """

    def served(row: Row) -> int | None:
        if row.shared_bytes is None or row.stored_bytes is None:
            return None
        return row.shared_bytes + tasks * row.stored_bytes

    rows = tuple(replace(row, served_bytes=served(row)) for row in board.rows)
    return replace(board, rows=rows, tasks_served=tasks)


# --- what keeps boards apart


def differences(boards: Sequence[Leaderboard]) -> list[str]:
    """What differs between boards, one field each, in their order: "epochs: 12 | 3"."""
    fields = [_fields(board) for board in boards]
    names = list(dict.fromkeys(name for board in fields for name in board))
    lines = []
    for name in names:
        values = [board.get(name, "not set") for board in fields]
        if any(value != values[0] for value in values):
            lines.append(f"{name}: {' | '.join(values)}")
    if not lines and len({board.fingerprint for board in boards}) > 1:
        lines = [f"fingerprint: {' | '.join(board.fingerprint for board in boards)}"]
    return lines


def _fields(board: Leaderboard) -> dict[str, str]:
    fields = {"suite": board.suite}
    for part, values in (("backbone", board.backbone), ("protocol", board.protocol)):
        for name, value in values.items():
            if name == "name":
                fields[part] = str(value)
            elif name == "checkpoint":
                fields[name] = str(value)[:12]
            elif isinstance(value, Mapping):
                fields.update({f"{name}.{key}": str(inner) for key, inner in value.items()})
            else:
                fields[name] = str(value)
    return fields


def subject(board: Leaderboard) -> str:
    """Backbone, its checkpoint, image size and protocol, in words."""
    backbone = board.backbone
    checkpoint = backbone["checkpoint"]
    weights = "random weights" if checkpoint == "random" else f"checkpoint {checkpoint[:12]}"
    name = f"{backbone['name']} ({weights}) at {backbone['image_size']} px"
    return f"{name}; protocol {board.protocol['name']}"


def compact(count: int | None) -> str:
    """A number of parameters as tables print it: 0, 768, 9.2K, 0.33M, 85.80M."""
    if count is None:
        return "–"
    if count < 1_000:
        return str(count)
    return f"{count / 1e3:.1f}K" if count < 99_950 else f"{count / 1e6:.2f}M"


def _list(values: Iterable[object]) -> str:
    return ", ".join(map(str, values))
