"""what papers report, and how they got it"""

from __future__ import annotations

import argparse

from petlbench.commands import _shared as shared

ORDER = 80
ENDINGS = {"table": ".txt", "csv": ".csv", "markdown": ".md"}


def add(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--suite", help="only this suite")
    add("--method", metavar="M", help="only this method: petlbench's name or the paper's")
    add("--task", metavar="T", help="only this task")
    add("--source", metavar="S", help="only this source: convpass, or arXiv:2207.07039")
    shared.add_format(parser, ENDINGS)


def run(options: argparse.Namespace) -> None:
    from petlbench import published, spreadsheet
    from petlbench.published import block, rows

    form = shared.chosen_format(options, ENDINGS)
    asked = {name: getattr(options, name) for name in ("suite", "method", "task", "source")}
    frame = published.select(**asked)
    if form == "csv":
        shared.output(spreadsheet.from_frame(frame), options.output)
    elif form == "markdown":
        shared.output(block.markdown(rows.of(frame)), options.output)
    elif not any(asked.values()):
        shared.output(block.overview(frame), options.output)
    elif options.output:
        shared.output(block.text(rows.of(frame)), options.output)
    else:
        block.show(rows.of(frame), shared.console())
