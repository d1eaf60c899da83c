"""rank what has been run"""

from __future__ import annotations

import argparse

from petlbench import formats
from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

ORDER = 60


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_results(parser)
    known = "|".join(formats.names())
    parser.add_argument("--format", help=f"{known} (default: that of FILE, or table)")
    text = "another one than the tasks' own, as in: balanced_accuracy, macro_f1, t2i_r1"
    parser.add_argument("--metric", metavar="M", help=text)
    shared.add_output(parser, "default: the screen")


def run(options: argparse.Namespace) -> None:
    form = options.format or (formats.of(options.output) if options.output else "table")
    extension = formats.load(form).EXTENSION
    if options.output and options.output.suffix != extension:
        raise UsageError(f"{options.output}: a file of format {form} ends in {extension}.")
    chosen = shared.boards(options)
    if form == "table" and not options.output:
        from petlbench.formats import table

        table.show(chosen, shared.console())
    else:
        shared.output(formats.write(chosen, form), options.output)
