"""write one page of everything, to be opened in a browser without a network"""

from __future__ import annotations

import argparse
from pathlib import Path

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

ORDER = 70


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_results(parser)
    text = "what the per-task map compares with (default: linear, or the best)"
    parser.add_argument("--baseline", metavar="METHOD", help=text)
    shared.add_output(parser, "a file that ends in .html (default: report.html)")


def run(options: argparse.Namespace) -> None:
    file = options.output or Path("report.html")
    if file.suffix not in (".html", ".htm"):
        raise UsageError(f"{file}: the report is a page, so name it .html.")
    from petlbench import report
    from petlbench.statistics.judge import judge
    from petlbench.store import write_text

    found, problems = shared.load(options)
    with shared.status("resampling, for intervals and rank groups"):
        page = report.render([judge(each) for each in found], problems, options.baseline)
    shared.save(lambda: write_text(file, page), file)
