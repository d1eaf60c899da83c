"""run a comparison; what is recorded already is not run again"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from petlbench.commands import _shared as shared

if TYPE_CHECKING:
    from petlbench.plan import Plan

ORDER = 10
INTERRUPTED = "Finished runs are recorded; the same command goes on."


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_request(parser)


def run(options: argparse.Namespace) -> int:
    from petlbench import api
    from petlbench.formats import table

    plan = shared.make_plan(options)
    shared.print_plan(plan)
    result = api.execute(plan)
    shared.warn(result.problems)
    if result.board is not None:
        shared.say("")
        table.show([result.board], shared.console())
        shared.say("")
    shared.say(*(f"wrote {file}" for file in result.files))
    if result.failed:
        told = f"{result.failed} of {len(plan.specs)} runs failed; why: {plan.store.failed}."
        shared.warn([f"{told} The same command tries them again."])
        return 1
    shared.say(_next_command(plan, options.arguments))
    return 0


def _next_command(plan: Plan, arguments: Sequence[str]) -> str:
    from petlbench.method import builtin

    if len({spec.seed for spec in plan.specs}) < 3 and "--seeds" not in " ".join(arguments):
        again = shlex.join(["petlbench", *arguments, "--seeds", "3"])
        return f"next: {again}    (is the order more than seed noise?)"
    used = {spec.method.name for spec in plan.specs}
    others = [name for name in builtin() if name not in used][:2]
    if others and "--methods" not in " ".join(arguments):
        again = shlex.join(["petlbench", *arguments, "--methods", ",".join(others)])
        return f"next: {again}    (all methods: petlbench list methods)"
    return f"next: petlbench plot params-vs-accuracy --results {plan.store.folder} -o figure.pdf"
