"""classify images with a finished run"""

from __future__ import annotations

import argparse
from pathlib import Path

from petlbench.commands import _shared as shared
from petlbench.errors import UsageError

ORDER = 100


def add(parser: argparse.ArgumentParser) -> None:
    shared.add_adapted(parser)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGES", help="files, folders")
    shared.add_output(parser, ".csv (default: screen)")


def run(options: argparse.Namespace) -> None:
    from petlbench import spreadsheet
    from petlbench.adapted import image_files

    if options.output and options.output.suffix != ".csv":
        raise UsageError(f"{options.output}: predictions are written as .csv.")
    files = image_files(options.images)  # before the model is built
    table = shared.load_adapted(options).predict(files)
    table["probability"] = table["probability"].map("{:.4f}".format)
    shared.output(spreadsheet.from_frame(table), options.output)
