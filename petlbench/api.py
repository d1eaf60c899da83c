"""The verbs, for Python and for the command line: plan, run, load, rank, plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench import formats, judged, leaderboard, results
from petlbench.results import Results, folders
from petlbench.store import Record, Store, write_text
from petlbench.wording import visible

if TYPE_CHECKING:
    import pandas as pd

    from petlbench.plan import Plan


@dataclass(frozen=True)
class Comparison:
    """What `run` gives back. `results` has every run with this comparison's fingerprint."""

    results: Results | None = field(repr=False)
    folder: Path
    done: int
    failed: int
    files: tuple[Path, ...]
    problems: tuple[str, ...] = ()  # a sentence for each record that cannot be read

    @property
    def board(self) -> leaderboard.Leaderboard | None:
        """None while nothing is recorded."""
        return self.results.board if self.results else None

    def frame(self) -> pd.DataFrame:
        """One row per method (see `petlbench leaderboard`)."""
        from petlbench.formats.csv import to_frame

        return self.results.frame() if self.results else to_frame([])


def run(*, progress: bool | None = None, **request: Any) -> Comparison:
    """Run a comparison; the arguments are those of `petlbench.request.Request`.

        petlbench.run(methods=["convpass", "lora"], tasks=["digits"], seeds=3,
                      settings={"lora.rank": 4, "protocol.epochs": 20})

    What is recorded already is not run again. Writes leaderboard.csv and params_vs_accuracy.png
    into the results folder. Raises UsageError for bad input, before anything runs.
    """
    from petlbench import plan
    from petlbench.errors import unknown
    from petlbench.request import Request

    names = [each.name for each in fields(Request)]
    for name in request:
        if name not in names:
            hint = 'A field of the protocol goes into settings={"protocol.epochs": 3}.'
            raise unknown("argument of petlbench.run", name, names, hint)
    return execute(plan.make(Request(**request)), progress)


def execute(plan: Plan, progress: bool | None = None) -> Comparison:
    """Run what is still to do of `plan`, then rank and plot."""
    from petlbench.data import cache
    from petlbench.errors import UsageError
    from petlbench.execute import execute as execute_runs
    from petlbench.progress import Display
    from petlbench.statistics.judge import judge

    store = plan.store
    outcome: dict[str, str] = {}
    if plan.todo:
        cache.require_usable()
        display = Display(store.claims, len(plan.todo), progress)
        request = plan.request
        outcome = execute_runs(
            plan.todo, store, plan.machine, display, request.backend, request.resources
        )
        for folder in (store.records, store.trials):
            judged.look(folder)  # so that the next plan need not read what is new
    here = plan.specs[0].fingerprint
    records, problems = store.load()
    every = results.comparisons([r for r in records if r["fingerprint"] == here], store)
    found = judge(every[0]) if every else None
    files = []
    if found is not None:
        files.append(store.folder / "leaderboard.csv")
        try:
            write_text(files[-1], formats.write([found], "csv"))
        except OSError as error:
            raise UsageError(
                f"cannot write {files[-1]}: {error.strerror or error}. The runs are safe: "
                "make room, then type the same command."
            ) from error
        if any(row.rank is not None for row in found.board.rows):
            from petlbench import plots

            files.append(store.folder / "params_vs_accuracy.png")
            plots.draw("params-vs-accuracy", found, files[-1])
    failed = sum(status == "failed" for status in outcome.values())
    done = len(plan.specs) - failed
    return Comparison(found, store.folder, done, failed, tuple(files), tuple(problems))


def load_results(folder: Path | str = "results") -> pd.DataFrame:
    """Every finished run below `folder`, one tidy row for each set it was tested on.

    `score` is the task's own metric; all metrics are in [0, 1] (kappa in [-1, 1]). A record that
    cannot be read is left out, with a warning.
    """
    import warnings

    import pandas as pd

    from petlbench.formats.tidy import as_line

    found, problems = finished(folder)
    for problem in problems:
        warnings.warn(visible(problem), stacklevel=2)
    return pd.DataFrame([as_line(each) for record in found for each in leaderboard.tested(record)])


def finished(folder: Path | str) -> tuple[list[Record], list[str]]:
    """The record of every finished run below `folder`, and a sentence for each file left out."""
    found: list[Record] = []
    problems: list[str] = []
    for each in folders(folder):
        records, trouble = Store(each).load()
        found += (record for record in records if record["status"] == "done")
        problems += trouble
    return found, problems


def select(
    found: Sequence[Results], fingerprint: str | None, suite: str | None = None
) -> list[Results]:
    """Those of the suite whose fingerprint starts with the given digits; None: all of them."""
    from petlbench.errors import UsageError, unknown

    if not found:
        raise UsageError("none of the records there can be read.")
    of_suite = [each for each in found if suite in (None, each.board.suite)]
    if not of_suite:
        suites = sorted({each.board.suite for each in found})
        raise unknown("suite", str(suite), suites, "(Only suites that have results here.)")
    chosen = [each for each in of_suite if each.board.fingerprint.startswith(fingerprint or "")]
    if not chosen:
        known = [each.board.fingerprint for each in of_suite]
        raise unknown("fingerprint", str(fingerprint), known)
    return chosen
