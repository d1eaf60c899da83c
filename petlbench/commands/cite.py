"""BibTeX for what has been run, or for what is named"""

from __future__ import annotations

import argparse

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

ORDER = 90


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folders", nargs="*", metavar="RESULTS", help="folders (default: results)")
    add("--methods", type=shared.names, metavar="A,B", help="these, beside the folders'")
    add("--suite", help="the data sets of this suite")
    add("--tasks", type=shared.names, metavar="A,B", help="with --suite: only these")
    add("--backbone", metavar="NAME")
    shared.add_output(parser, "(default: the screen)")


def run(options: argparse.Namespace) -> None:
    from petlbench import api, cite

    found = cite.Citations()
    named = options.methods or options.suite or options.tasks or options.backbone
    for folder in options.folders or ([] if named else ["results"]):
        records, problems = api.finished(folder)
        shared.warn(problems)
        cite.of_records(found, records)
    for reference in options.methods or ():
        found.method(reference)
    if options.suite:
        cite.of_suite(found, options.suite, options.tasks)
    elif options.tasks:
        raise UsageError("--tasks of which suite? Add --suite NAME.")
    if options.backbone:
        found.backbone(options.backbone)
    shared.output(found.text(), options.output)
