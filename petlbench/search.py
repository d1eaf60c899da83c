"""Settings chosen by the same number of trials for every method, without a look at test images.

A search belongs to a method (a row of the leaderboard) and a task, and serves all seeds. Its first
trial is what the row has without a search; the others draw from what the method declares
(`Method.search`) and the protocol allows (search_learning_rate, search_weight_decay). A trial is a
run of seed 0, trained in full on the protocol's search_train_split and judged once, at its end, on
search_val_split by the task's metric. The winner is then trained on train_split by every seed.

What a sampler proposes depends on its seed and on the values of the trials before, so that a search
is resumed by replaying the recorded ones. A trial that fails (training diverges, or settings do not
go together) counts like the others and has no value.

Rules after VPT (Jia et al., 2022; its released tune_vtab.py): judged at the last epoch, ties go to
the smaller learning rate. One budget for all is the point of Gulrajani and Lopez-Paz (2021).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import random
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from petlbench import method, protocol, settings
from petlbench.errors import RunError, UsageError, unknown
from petlbench.judged import Good
from petlbench.spec import RunSpec
from petlbench.store import Record

RULES = ("learning_rate", "weight_decay")  # of the protocol; their values: search_<name>
PREFIX = "search "  # in a run's members: those of the splits that its trials read

Space = dict[str, list[Any]]  # "method.rank" or "protocol.learning_rate" -> values
# Yields what to try next and is sent its value, or None where it has none.
Proposals = Generator[dict[str, Any], float | None, None]
Attempt = Callable[[RunSpec, str], Record]  # (trial, what to call it) -> its record
PARTS = ("setup", "train", "test")  # of a trial's seconds


def require(sampler: str) -> None:
    """Refuse a sampler that does not exist, or whose library is not there."""
    if sampler not in SAMPLERS:
        raise unknown("sampler", sampler, SAMPLERS)
    if sampler == "tpe" and importlib.util.find_spec("optuna") is None:
        raise UsageError(
            "--sampler tpe needs Optuna: pip install 'petlbench[search]', or search at random "
            "(--sampler random)."
        )


def declare(
    trials: int, sampler: str, reference: str, name: str, chosen: Collection[str]
) -> dict[str, Any]:
    """A spec's `search`: the method's declared values, but for settings that somebody chose."""
    cls = method.load(reference)
    for field in cls.search:
        settings.known(cls, name, field)
    space = {field: list(values) for field, values in cls.search.items() if field not in chosen}
    return {"trials": trials, "sampler": sampler, "space": space}


def conduct(spec: RunSpec, attempt: Attempt) -> dict[str, Any]:
    """Make all trials of a run's search; what its record says of them.

    {"trials": one each of {"config": the method's settings that differ from the row's own,
    "learning_rate", "weight_decay", "value" or None, "seconds", "key", "error" of a failed one},
    "winner": index or None, "metric", "sampler", "train_split", "val_split"}
    """
    assert spec.search is not None
    count, sampler = spec.search["trials"], spec.search["sampler"]
    space, default = _space(spec)
    proposals = SAMPLERS[sampler](space, default, _seed(spec), count)
    trials: list[dict[str, Any]] = []
    value = metric = None
    for number in range(1, count + 1):
        told = _told(proposals.send(value), default)
        record = attempt(trial(spec, told), f"trial {number}/{count}")
        trials.append(told)
        told |= {"value": None, "seconds": None, "key": record["key"]}
        if record["status"] == "done":
            metric = record["test"]["metric"]
            told["value"] = record["test"]["metrics"].get(metric)
            told["seconds"] = round(sum(record[f"{part}_seconds"] for part in PARTS), 4)
            if told["value"] is None:  # kappa of a single grade, say
                told["error"] = f"{metric} is not defined there"
        else:
            told["error"] = record["error"]["message"]
        value = told["value"]
    return {
        "trials": trials,
        "winner": winner(trials),
        "metric": metric,
        "sampler": sampler,
        "train_split": spec.rules["search_train_split"],
        "val_split": spec.rules["search_val_split"],
    }


def winner(trials: Sequence[dict[str, Any]]) -> int | None:
    """The index of the highest value; then of the smaller learning rate, then of the earlier."""
    valued = [i for i, told in enumerate(trials) if told["value"] is not None]
    best = min(valued, key=lambda i: (-trials[i]["value"], trials[i]["learning_rate"]), default=-1)
    return best if valued else None


def tuned(spec: RunSpec, found: dict[str, Any]) -> RunSpec:
    """The run, without a search, that has the winner's settings. Raises RunError without one."""
    if found["winner"] is None:
        reasons = dict.fromkeys(told["error"] for told in found["trials"])
        raise RunError(
            f"all {len(found['trials'])} trials of the search failed, so there is nothing to "
            f"choose from: {' | '.join(reasons)}"
        )
    return _settled(spec, found["trials"][found["winner"]])


def trial(spec: RunSpec, told: dict[str, Any]) -> RunSpec:
    """The run of a trial. It is the same for every seed and budget, so that trials are shared."""
    settled = _settled(spec, told)
    training, judging = spec.rules["search_train_split"], spec.rules["search_val_split"]
    read = {n.removeprefix(PREFIX): m for n, m in spec.members.items() if n.startswith(PREFIX)}
    own = {name: m for name, m in settled.members.items() if name != spec.rules["train_split"]}
    return replace(
        settled,
        seed=0,
        rules=settled.rules | {"train_split": training, "test_split": judging},
        members=own | read,
        sealed_splits=(spec.rules["test_split"],),
    )


def left(spec: RunSpec, recorded: Mapping[str, Good]) -> int:
    """How many trials of a run's search are still to make, of what is recorded of trials."""
    assert spec.search is not None
    count = spec.search["trials"]
    space, default = _space(spec)
    proposals = SAMPLERS[spec.search["sampler"]](space, default, _seed(spec), count)
    value = None
    for made in range(count):
        known = recorded.get(trial(spec, _told(proposals.send(value), default)).key)
        if known is None:
            return int(count - made)
        value = known.value
    return 0


def _space(spec: RunSpec) -> tuple[Space, dict[str, Any]]:
    """What is searched, and the row's own settings, which are always among the values."""
    assert spec.search is not None
    space = {f"method.{name}": values for name, values in spec.search["space"].items()}
    space |= {f"protocol.{name}": spec.rules[f"search_{name}"] for name in RULES}
    default = {f"method.{name}": spec.method.config[name] for name in spec.search["space"]}
    default |= {f"protocol.{name}": spec.rules[name] for name in RULES}
    for name, value in default.items():
        if value not in space[name]:
            space[name] = [*space[name], value]
    return space, default


def _told(drawn: dict[str, Any], default: dict[str, Any]) -> dict[str, Any]:
    """As records tell it."""
    owned = {name: value for name, value in drawn.items() if name.startswith("method.")}
    config = {n.partition(".")[2]: v for n, v in owned.items() if v != default[n]}
    return {"config": config, **{name: drawn[f"protocol.{name}"] for name in RULES}}


def _settled(spec: RunSpec, told: dict[str, Any]) -> RunSpec:
    rules = {name: value for name, value in spec.rules.items() if name not in protocol.SEARCH}
    return replace(
        spec,
        search=None,
        method=replace(spec.method, config=spec.method.config | told["config"]),
        rules=rules | {name: told[name] for name in RULES},
        members={n: m for n, m in spec.members.items() if not n.startswith(PREFIX)},
    )


def _seed(spec: RunSpec) -> int:
    """Of the sampler: 32 bits, from what is searched."""
    text = json.dumps([spec.method.name, spec.task, spec.suite])
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)


def _random(space: Space, default: dict[str, Any], seed: int, trials: int) -> Proposals:
    """Uniform draws, none twice while there are others. More trials have the same first ones."""
    draws = random.Random(seed)  # whose random() is the same in every version of Python
    settings_there_are = math.prod(len(values) for values in space.values())
    tried = [default]
    yield default
    while True:
        drawn = {name: values[int(draws.random() * len(values))] for name, values in space.items()}
        if drawn in tried and len(tried) < settings_there_are:
            continue
        tried.append(drawn)
        yield drawn


def _tpe(space: Space, default: dict[str, Any], seed: int, trials: int) -> Proposals:
    """Optuna's tree-structured Parzen estimator (Bergstra et al., 2011).

    The first third of the trials, at most ten (Optuna's default), is uniform.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=min(10, -(-trials // 3)))
    study = optuna.create_study(direction="maximize", sampler=sampler)
    study.enqueue_trial(default)
    while True:
        asked = study.ask()
        value = yield {n: asked.suggest_categorical(n, values) for n, values in space.items()}
        if value is None:
            study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(asked, value)


SAMPLERS: dict[str, Callable[[Space, dict[str, Any], int, int], Proposals]] = {
    "random": _random,
    "tpe": _tpe,
}
