"""The command line: one parser made of the commands in `commands/`, exit codes, interrupts."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

from petlbench import commands
from petlbench.commands._shared import Parser, warn
from petlbench.errors import RunError, UsageError

EXAMPLES = """\
examples:
  petlbench run                                    five small tasks, six methods, offline
  petlbench run --methods convpass,vpt             only these
  petlbench run --methods ./mine.py,lora           your own method against one of ours
  petlbench run --suite vtab-1k --tasks cifar --data-root DIR --methods convpass,lora,linear
  petlbench leaderboard --format markdown
  petlbench compare convpass lora                  is one better, and can the data tell?
  petlbench plot params-vs-accuracy -o figure.pdf
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM, which schedulers send before they kill: a command ends as it does at Ctrl-C."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point.

    Exit code 0: fine; 1: some runs failed; 2: bad input; 130: interrupted; 143: terminated.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `petlbench leaderboard | head` ends quietly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (UsageError, RunError) as error:
        warn([str(error)])
        code = 2
    except KeyboardInterrupt as stop:
        what, code = ("terminated", 143) if isinstance(stop, Terminated) else ("interrupted", 130)
        print(f"\npetlbench: {what}. {kept(arguments)}".rstrip(), file=sys.stderr)
        sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is left to be put in order
    sys.exit(code)


def _terminate(*_: object) -> NoReturn:
    for number in (signal.SIGINT, signal.SIGTERM):  # what follows must not disturb the clearing up
        signal.signal(number, signal.SIG_IGN)
    raise Terminated


def kept(arguments: Sequence[str]) -> str:
    """What an interrupted command leaves, where it has something to say."""
    if not arguments or arguments[0] not in commands.names():
        return ""
    return str(getattr(commands.load(arguments[0]), "INTERRUPTED", ""))


def dispatch(arguments: Sequence[str]) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    options.arguments = list(arguments)
    result: int | None = commands.load(options.command).run(options)
    return result or 0


def make_parser() -> Parser:
    from petlbench import __version__

    parser = Parser(
        prog="petlbench",
        description="Compare parameter-efficient transfer learning methods on vision "
        "transformers, under one protocol.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"petlbench {__version__}")
    added = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, command in commands.modules().items():
        text = command.__doc__.partition("\n")[0]
        command.add(added.add_parser(name, help=text, description=text))
    return parser
