"""tell what is done, running and where, failed and why, and how long the rest takes"""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from petlbench.commands import _shared as shared
from petlbench.wording import visible

if TYPE_CHECKING:
    from petlbench.plan import Plan
    from petlbench.status import Status

ORDER = 55
INTERRUPTED = "Nothing was stopped but the looking."
EVERY = 2.0  # seconds


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_request(parser)
    text = "look again every two seconds, until nothing is running"
    parser.add_argument("--watch", action="store_true", help=text)


def run(options: argparse.Namespace) -> None:
    """With arguments of `run` it knows what is waiting; with --results alone, what is there."""
    plan = shared.make_plan(options) if _asks_for_runs(options) else None
    text, busy = _look(options, plan)
    if not (options.watch and sys.stdout.isatty()):
        shared.say(text)
        while options.watch and busy:
            time.sleep(EVERY)
            before, (text, busy) = text, _look(options, plan)
            if text != before:
                shared.say(text)
        return
    from rich.live import Live
    from rich.text import Text

    with Live(Text(text), console=shared.console(), auto_refresh=False) as live:
        while busy:
            time.sleep(EVERY)
            text, busy = _look(options, plan)
            live.update(Text(text), refresh=True)


def _asks_for_runs(options: argparse.Namespace) -> bool:
    """Whether any argument but the results folder says what is to be run."""
    mine = ("results", "watch", "command", "arguments")
    return any(value for name, value in vars(options).items() if name not in mine)


def _look(options: argparse.Namespace, plan: Plan | None) -> tuple[str, bool]:
    """What there is to say, and whether anything is running."""
    from petlbench import status
    from petlbench.store import Store

    if plan is not None:
        found = status.read(plan.store, {spec.key for spec in plan.specs}, plan.request.report_peek)
        told = status.lines(found, plan.store.folder, _left(found, plan))
        return visible("\n".join(told)), bool(found.running)
    told, busy = [], False
    for folder in status.folders(options.results or "results"):
        found = status.read(Store(folder))
        told += status.lines(found, folder)
        busy |= bool(found.running)
    return visible("\n".join(told)), busy


def _left(found: Status, plan: Plan) -> str:
    """How long until all is done, from recorded runs; empty where they do not tell."""
    from petlbench import estimate
    from petlbench.progress import duration

    todo = [spec for spec in plan.specs if spec.key not in found.done]
    cost = estimate.seconds_left(plan, todo)
    if not todo or cost is None:
        return ""
    spent = sum(time.time() - run.since for run in found.running)
    at_a_time = len(found.running) or plan.workers()[0]
    return f"about {duration(max(0.0, cost - spent) / at_a_time)} left, {at_a_time} at a time"
