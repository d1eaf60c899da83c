"""which data sets are there; prepare or verify them"""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path
from typing import Any

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

ORDER = 50
INTERRUPTED = "What is finished is kept; the same command goes on."


def add(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="list|prepare|verify", required=True)
    for verb, text in (
        ("list", "what is there of every suite that reads from disk, and what is missing"),
        ("prepare", "make a suite's folders from original data sets, or from a prepared copy"),
        ("verify", "decode every image and compare it with what was prepared"),
    ):
        command = verbs.add_parser(verb, help=text, description=text)
        default = {"list": None, "verify": "vtab-1k"}.get(verb)
        if verb == "prepare":
            command.add_argument("suite", metavar="SUITE", help="vtab-1k")
        else:
            text = f"default: {default or 'all'}"
            command.add_argument("suite", metavar="SUITE", nargs="?", default=default, help=text)
        text = "where the prepared data sets lie (or set PETLBENCH_DATA)"
        command.add_argument("--data-root", metavar="DIR", help=text)
        if verb != "list":
            command.add_argument("--tasks", type=shared.names, metavar="A,B", help="default: all")
        if verb == "prepare":
            add = command.add_argument
            add("--raw", type=Path, metavar="DIR", help="where DIR/<source>/ hold the originals")
            text = "get what is missing and has a checksum, into --raw"
            add("--download", action="store_true", help=text)
            text = "a copy as it is: a folder, an archive, or hf:OWNER/NAME@COMMIT"
            add("--from", dest="copy", metavar="COPY", help=text)
            add("--force", action="store_true", help="replace what is there")


def run(options: argparse.Namespace) -> int:
    chosen = options.data_root or os.environ.get("PETLBENCH_DATA")
    root = Path(chosen).expanduser() if chosen else None
    if options.verb == "list":
        return _list(options, root)
    if root is None:
        raise UsageError("where do the data sets lie? Give --data-root DIR or set PETLBENCH_DATA.")
    return {"prepare": _prepare, "verify": _verify}[options.verb](options, root)


def _list(options: argparse.Namespace, root: Path | None) -> int:
    from rich.markup import escape
    from rich.table import Table

    from petlbench.prepare import overview

    console = shared.console()
    for suite in overview.on_disk(options.suite):
        found = overview.states(suite, root)
        columns: dict[str, list[str]] = {
            "task": [each.task for each in found],
            "state": [each.state for each in found],
            "images": [" + ".join(f"{n:,}" for n in each.images.values()) for each in found],
            "MiB": [f"{each.bytes / 2**20:,.1f}" if each.bytes else "" for each in found],
            "lineage": [each.lineage for each in found],
            "licence": [each.licence for each in found],
            "source": [each.source for each in found],
        }
        columns = {name: cells for name, cells in columns.items() if any(cells)}
        splits = ", ".join(dict.fromkeys(split for each in found for split in each.images))
        title = f"{suite.name} (images of {splits})" if splits else suite.name
        table = Table(title=title, title_justify="left")
        for name in columns:
            justify: Any = "right" if name == "MiB" else "left"
            whole = name in ("task", "images")
            table.add_column(name, no_wrap=whole, overflow="fold", justify=justify)
        for row in zip(*columns.values(), strict=True):
            table.add_row(*map(escape, row))
        console.print(table)
        shared.say(*overview.reasons(found))
    return 0


def _prepare(options: argparse.Namespace, root: Path) -> int:
    from petlbench.prepare import copies, originals, overview, sources

    suite = overview.preparable(options.suite)
    tasks = suite.select(options.tasks)
    if bool(options.raw) == bool(options.copy) or (options.copy and options.download):
        raise UsageError(
            "say what to prepare from: --raw DIR, the original data sets (with --download: get "
            "them), or --from COPY, a prepared copy."
        )
    with shared.bars() as progress:
        if options.copy:
            outcome = copies.take(tasks, options.copy, root, force=options.force, progress=progress)
        else:
            outcome = originals.prepare(
                tasks,
                sources(),
                options.raw.expanduser(),
                root,
                download=options.download,
                force=options.force,
                progress=progress,
            )
    for what, names in (("made", outcome.made), ("there already", outcome.kept)):
        if names:
            shared.say(f"{what}: {', '.join(names)}")
    if not outcome.failed:
        only = ["--tasks", ",".join(options.tasks)] if options.tasks else []
        again = ["petlbench", "run", "--suite", suite.name, "--data-root", str(root), *only]
        shared.say(f"next: {shlex.join(again)}")
        return 0
    grouped: dict[str, list[str]] = {}
    for name, reason in outcome.failed.items():
        grouped.setdefault(reason, []).append(name)
    lines = [f"{', '.join(names)}: {reason}" for reason, names in grouped.items()]
    count = f"{len(outcome.failed)} of {len(tasks)} tasks could not be prepared"
    shared.warn(["\n".join([f"{count}.", *lines])])
    return 2


def _verify(options: argparse.Namespace, root: Path) -> int:
    from petlbench.prepare import overview
    from petlbench.prepare.verify import verify

    sound = True
    for suite in overview.on_disk(options.suite):
        for task in overview.present(suite, options.tasks, root):
            with shared.bars() as progress:
                report = verify(suite.at(root), task, root, progress)
            sound &= not report.problems
            verdict = "DIFFERS" if report.problems else report.verdict
            shared.say(f"{task.name}: {report.images:,} images, {verdict}")
            for line in (*report.problems, *(f"note: {note}" for note in report.notes)):
                shared.say(f"  {line}")
    return 0 if sound else 1
