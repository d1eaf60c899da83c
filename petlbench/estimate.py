"""What a plan costs in time, as recorded runs or measurements of this machine tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from petlbench import speed
from petlbench.plan import Plan
from petlbench.spec import RunSpec
from petlbench.speed import Speed
from petlbench.store import Record, Store
from petlbench.wording import count

TELLING = 20  # records of a method that tell its speed: of every task of VTAB-1K, one at least


def seconds(plan: Plan, spec: RunSpec, rate: Speed) -> float:
    """What one run costs at that speed, and the trials before it."""
    training, test = plan.sizes[spec.task]
    cost = rate.run(training, spec.rules["epochs"], test)
    if trials := plan.trials.get(spec.key, 0):
        training, test = plan.trial_sizes[spec.task]
        cost += trials * rate.run(training, spec.rules["epochs"], test)
    return cost


def seconds_left(plan: Plan, todo: Sequence[RunSpec]) -> float | None:
    """What these runs cost in sum, as the recorded others tell; None where they do not."""
    keys = {spec.key for spec in todo}
    telling = _telling((s for s in plan.specs if s.key not in keys), plan.store)
    rates = {label: speed.from_records(r, plan.sizes) for label, r in telling.items()}
    if any(spec.method.label not in rates for spec in todo):
        return None
    return sum(seconds(plan, spec, rates[spec.method.label]) for spec in todo)


def _telling(done: Iterable[RunSpec], store: Store) -> dict[str, list[Record]]:
    """Method label -> some records, which tell its speed."""
    found: dict[str, list[Record]] = {}
    for spec in done:
        of_method = found.setdefault(spec.method.label, [])
        if len(of_method) < TELLING and (record := store.read(spec.key)):
            of_method.append(record)
    return {label: records for label, records in found.items() if records}


def wall_seconds(
    plan: Plan, measure: bool = False, fresh: bool = False
) -> tuple[float | None, str]:
    """Estimated time of what is to do, start-up included, and what the estimate rests on.

    Recorded runs of a method tell its speed, or this machine remembers it; what nothing is
    known of is measured for a few seconds each, or else the time is None. `fresh` measures
    again what is remembered. Of other machines, and of several devices, only records tell.
    """
    if not plan.todo:
        return 0.0, ""
    machine = plan.machine
    here = plan.request.measurable
    rates = speed.known(plan.todo, machine) if here and not fresh else {}
    done = _telling(plan.done, plan.store)
    rates |= {label: speed.from_records(found, plan.sizes) for label, found in done.items()}
    if measure and here:
        unknown = [spec for spec in plan.todo if spec.method.label not in rates]
        rates |= speed.measure(unknown, machine)
    if any(spec.method.label not in rates for spec in plan.todo):
        return None, ""
    costs = [seconds(plan, spec, rates[spec.method.label]) for spec in plan.todo]
    starts = 1 if machine.jobs == 1 else 2  # of this process, and of its workers
    wall = speed.makespan(costs, machine.jobs) + starts * speed.startup()
    recorded = sum(map(len, done.values()))
    source = [count(recorded, "recorded run")] if recorded else []
    if any(spec.method.label not in done for spec in plan.todo):
        source.append("speeds measured on this machine")
    return wall, " and ".join(source)
