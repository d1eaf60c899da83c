"""The command line: parse and print, no logic. Everything else is imported when it is needed."""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from petlbench.errors import RunError, UsageError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from petlbench.leaderboard import Leaderboard
    from petlbench.plan import Plan

EXAMPLES = """\
examples:
  petlbench run                                    five small tasks, six methods, offline
  petlbench run --methods convpass,vpt             only these
  petlbench run --methods ./mine.py,lora           your own method against one of ours
  petlbench run --suite vtab-1k --tasks cifar --data-root DIR --methods convpass,lora,linear
  petlbench leaderboard --format markdown
  petlbench plot params-vs-accuracy -o figure.pdf
"""
LISTS = ("methods", "tasks", "suites", "protocols", "backbones", "presets", "runs")
RESUMED = {
    "run": " Finished runs are recorded; the same command goes on.",
    "data": " What is finished is kept; the same command goes on.",
}
PLOTS = (
    "params-vs-accuracy",
    "accuracy-vs-shots",
    "accuracy-vs-trials",
    "default-vs-tuned",
    "peek-gap",
)
FORMATS = ("table", "csv", "markdown", "json")


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are told like all others, and whose options are typed in full."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        if "unrecognized arguments" in message:
            message += ". Lists take commas (--methods lora,linear), files and folders an option"
        raise UsageError(f"{message}.\nSee: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point. Exit code 0: fine; 1: some runs failed; 2: bad input; 130: interrupted."""
    try:
        code = dispatch(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # `petlbench leaderboard | head` ends quietly
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (UsageError, RunError) as error:
        print(f"petlbench: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        (command,) = (sys.argv[1:2] if arguments is None else arguments[:1]) or [""]
        kept = RESUMED.get(command, "")
        print(f"\npetlbench: interrupted.{kept}", file=sys.stderr)
        sys.stdout.flush()
        code = 130
    sys.exit(code)


def dispatch(arguments: Sequence[str]) -> int:
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    options.arguments = list(arguments)
    result = COMMANDS[options.command](options)
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
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, text in (
        ("run", "run a comparison; what is recorded already is not run again"),
        ("plan", "show what `run` with the same arguments would do, and how long it would take"),
        ("benchmark", "how fast this machine is, and what that means in hours for each suite"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        _add_request(command, "every suite" if name == "benchmark" else "mini")
        if name != "run":
            text = "measure again what this machine remembers of its speed"
            command.add_argument("--fresh", action="store_true", help=text)

    listing = commands.add_parser("list", help="what there is to choose from")
    listing.add_argument("what", metavar="|".join(LISTS))
    listing.add_argument("--suite", help="with tasks: only this suite")
    listing.add_argument("--results", default="results", metavar="DIR", help="with runs: where")
    listing.add_argument(
        "--format", metavar="markdown", help="with methods: a table of ours, measured in a minute"
    )
    text = "with --format: a file, between <!-- methods:begin --> and <!-- methods:end -->"
    listing.add_argument("-o", "--output", type=Path, metavar="FILE", help=text)

    _add_data(commands.add_parser("data", help="which data sets are there; prepare or verify them"))

    board = commands.add_parser("leaderboard", help="rank what has been run")
    _add_results(board)
    board.add_argument("--format", default=None, help="|".join(FORMATS) + " (default: table)")
    text = "another one than the tasks' own, as in: balanced_accuracy, macro_f1, t2i_r1"
    board.add_argument("--metric", metavar="M", help=text)
    board.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".csv, .md or .json (default: the screen)"
    )

    plot = commands.add_parser("plot", help="draw what has been run")
    plot.add_argument("kind", metavar="KIND", help=", ".join(PLOTS))
    _add_results(plot)
    plot.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help=".png, .pdf or .svg by extension"
    )

    cite = commands.add_parser("cite", help="BibTeX for what has been run, or for what is named")
    cite.add_argument("folders", nargs="*", metavar="RESULTS", help="folders (default: results)")
    cite.add_argument("--methods", type=_names, metavar="A,B", help="these, beside the folders'")
    cite.add_argument("--suite", help="the data sets of this suite")
    cite.add_argument("--tasks", type=_names, metavar="A,B", help="with --suite: only these")
    cite.add_argument("--backbone", metavar="NAME")
    cite.add_argument("-o", "--output", type=Path, metavar="FILE", help="(default: the screen)")

    check = commands.add_parser("check", help="is a method sound? seconds, on tiny models")
    check.add_argument("methods", nargs="*", metavar="METHOD", help="a file, or a method's name")
    check.add_argument("--all", action="store_true", help="every built-in method, as a table")

    predict = commands.add_parser("predict", help="classify images with a finished run")
    _add_adapted(predict)
    predict.add_argument("images", nargs="+", type=Path, metavar="IMAGES", help="files, folders")
    predict.add_argument("-o", "--output", type=Path, metavar="FILE", help=".csv (default: screen)")

    export = commands.add_parser("export", help="write a finished run as one checkpoint")
    _add_adapted(export)
    export.add_argument(
        "--merge", action="store_true", help="a plain timm checkpoint (default: what was trained)"
    )
    export.add_argument(
        "-o", "--output", type=Path, metavar="FILE", help="default: KEY[.merged].safetensors, here"
    )
    return parser


def _add_request(parser: argparse.ArgumentParser, suite: str) -> None:
    add = parser.add_argument
    add(
        "--plan",
        type=Path,
        metavar="FILE",
        help="a TOML file: suite, methods, seeds, ..., [settings]",
    )
    add("--suite", help=f"default: {suite}")
    add("--tasks", type=_names, metavar="A,B", help="default: all of the suite")
    add("--methods", type=_names, metavar="A,B", help="names or ./file.py")
    add(
        "--preset",
        action="extend",
        type=_names,
        dest="presets",
        metavar="A,B",
        help="settings per task: convpass.released, or ./convpass.mine.toml",
    )
    add("--backbone", metavar="NAME", help="a timm model or clip:NAME (default: the suite's)")
    add("--checkpoint", metavar="FILE", help=".safetensors, .npz, .pth, .pt, or: random")
    add("--data-root", metavar="DIR", help="where the datasets lie (or set PETLBENCH_DATA)")
    add("--protocol", metavar="NAME", help="a name or ./file.toml (default: the suite's)")
    add("--seeds", type=_whole, metavar="N", help="run seeds 0..N-1")
    text = "choose settings by N trials for every method and task, on validation images"
    add("--search", type=_whole, metavar="N", help=text)
    add("--sampler", metavar="S", help="of a search: random (default) or tpe")
    add("--image-size", metavar="PX", help="short for --set protocol.image_size=PX")
    add("--epochs", metavar="N", help="short for --set protocol.epochs=N")
    add("--precision", metavar="P", help="short for --set protocol.precision=P: auto, fp32 or bf16")
    add(
        "--set",
        action="append",
        default=[],
        metavar="X.Y=Z",
        help="a setting of a method or of the protocol: convpass.scale=0.1",
    )
    add("--results", metavar="DIR", help="default: results/<suite>")
    add("--device", metavar="D", help="auto, cpu, cuda or mps")
    add("--jobs", type=_whole, metavar="N", help="runs at a time (default: what fits)")
    add("--threads", type=_whole, metavar="N", help="CPU threads per run")
    add("--attention", metavar="A", help="auto (the faster one here), explicit or fused kernel")
    flag: dict[str, Any] = {"action": "store_true", "default": None}
    add("--recompute", **flag, help="activations twice: less memory, same result, slower")
    add("--compile", **flag, help="torch.compile: a minute more at the start of every process")
    text = "show the test accuracy over training too; it chooses nothing, and the record says so"
    add("--report-peek", **flag, help=text)
    add("--keep", metavar="K", help="all, predictions or none, beside each record (default: all)")


def _add_data(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(
        dest="verb", metavar="list|prepare|verify", required=True, parser_class=Parser
    )
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
            command.add_argument("--tasks", type=_names, metavar="A,B", help="default: all")
        if verb == "prepare":
            add = command.add_argument
            add("--raw", type=Path, metavar="DIR", help="where DIR/<source>/ hold the originals")
            text = "get what is missing and has a checksum, into --raw"
            add("--download", action="store_true", help=text)
            text = "a copy as it is: a folder, an archive, or hf:OWNER/NAME@COMMIT"
            add("--from", dest="copy", metavar="COPY", help=text)
            add("--force", action="store_true", help="replace what is there")


def _add_adapted(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "a run's key or its first digits (petlbench list runs), or a stored .safetensors"
    add("--run", required=True, metavar="KEY", help=text)
    add("--results", default="results", metavar="DIR", help="where the run is (default: results)")
    add("--checkpoint", metavar="FILE", help="the backbone's, if the run was given one")
    add("--method", metavar="FILE", help="the method's file, if it is your own")
    add("--device", default="cpu", metavar="D", help="cpu (default) or cuda")


def _add_results(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--results", default="results", metavar="DIR", help="default: results")
    parser.add_argument("--fingerprint", help="only the comparison with this fingerprint")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number (3 seeds are the seeds 0, 1 and 2)"
        ) from None


def _make_plan(options: argparse.Namespace, sketch: bool = False) -> Plan:
    from petlbench import plan

    settings: dict[str, Any] = {}
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals or "." not in name:
            raise UsageError(
                f"--set {text}: write it as METHOD.SETTING=VALUE, as in --set convpass.scale=0.1"
            )
        settings[name.strip()] = value.strip()
    for name in ("image_size", "epochs", "precision"):
        if getattr(options, name) is not None:
            if f"protocol.{name}" in settings:
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option} and --set protocol.{name} say the same; give one.")
            settings[f"protocol.{name}"] = getattr(options, name)
    names = {field.name for field in dataclasses.fields(plan.Request)} - {"settings"}
    changes = {n: getattr(options, n) for n in names if getattr(options, n) is not None}
    if settings:
        changes["settings"] = settings
    if options.plan:
        return plan.make(plan.request_from_file(options.plan, changes), sketch)
    return plan.make(plan.Request(**changes), sketch)


def run(options: argparse.Namespace) -> int:
    from petlbench import api, leaderboard

    plan = _make_plan(options)
    console = _console()
    _print_plan(plan, console)
    result = api.execute(plan)
    if result.board is not None:
        console.print()
        leaderboard.print_table([result.board], console)
        console.print()
    for file in result.files:
        console.print(f"wrote {file}", markup=False, highlight=False, soft_wrap=True)
    if result.failed:
        print(
            f"petlbench: {result.failed} of {len(plan.specs)} runs failed; why: "
            f"{plan.store.failed}. The same command tries them again.",
            file=sys.stderr,
        )
        return 1
    console.print(
        _next_command(plan, options.arguments), markup=False, highlight=False, soft_wrap=True
    )
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


def plan(options: argparse.Namespace) -> None:
    made = _make_plan(options)
    console = _console()
    _print_plan(made, console, measure=True, fresh=options.fresh)
    from rich.markup import escape
    from rich.table import Table

    todo = {spec.key for spec in made.todo}
    tasks = list(dict.fromkeys(spec.task for spec in made.specs))
    table = Table(title="runs done / all", title_justify="left")
    for column in ("method", *tasks):
        table.add_column(column)
    for label in dict.fromkeys(spec.method.label for spec in made.specs):
        cells = []
        for task in tasks:
            keys = [s.key for s in made.specs if s.method.label == label and s.task == task]
            cells.append(f"{sum(key not in todo for key in keys)} / {len(keys)}")
        table.add_row(escape(label), *cells)
    console.print(table)


def _print_plan(plan: Plan, console: Console, measure: bool = False, fresh: bool = False) -> None:
    from petlbench.benchmark import duration, manner

    first, done = plan.specs[0], len(plan.specs) - len(plan.todo)
    failed = f" ({plan.failed} failed before)" if plan.failed else ""
    with _status("measuring how fast the methods are here", measure):
        wall, source = plan.wall_seconds(measure, fresh)
    lines = [
        f"{first.suite}: {len(plan.specs)} runs, {done} done, {len(plan.todo)} to go{failed}",
        f"backbone {first.backbone.name} ({first.backbone.checkpoint[:12]}), protocol "
        f"{first.protocol}, fingerprint {first.fingerprint}",
    ]
    if plan.todo:
        lines.append(f"{manner(plan)}; results in {plan.store.folder}")
        told = f"{duration(wall)}, from {source}" if wall else "see petlbench plan"
        lines.append(f"estimated time: {told}")
    for line in lines + plan.notes:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def listing(options: argparse.Namespace) -> None:
    if options.what not in LISTS:
        raise unknown("list", options.what, LISTS)
    if options.format or options.output:
        return _methods_table(options)
    rows = _LISTINGS[options.what](options)
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        print(f"{name:<{width}}  {text}".rstrip())


def _methods_table(options: argparse.Namespace) -> None:
    if (options.what, options.format) != ("methods", "markdown"):
        raise UsageError("what can be written as a table: petlbench list methods --format markdown")
    from petlbench import methods_table
    from petlbench.method import builtin
    from petlbench.store import write_text

    if options.output:
        methods_table.insert("", options.output)  # a place for it? Before measuring
    with _status("attaching every method to tiny models, a second or two each"):
        table = methods_table.to_markdown(builtin())
    if options.output:
        text = methods_table.insert(table, options.output)
        _save(lambda: write_text(options.output, text), options.output)
    else:
        print(table, end="")


def _list_methods(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.method import builtin, families, installed, members, settings_text, summary

    rows = [
        (name, f"{summary(file)}{''.join(f' [{defaults}]' for defaults in settings_text(file))}")
        for name, file in builtin().items()
    ]
    for family, file in families().items():
        rows += [(f"{family}:{name}", text) for name, text in members(file).items()]
    return rows + [(name, f"from {point.value}") for name, point in installed().items()]


def _list_presets(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.presets import builtin, load

    return [(name, load(name).summary) for name in builtin()]


def _list_tasks(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.task import load_suite, suites

    chosen = [options.suite] if options.suite else suites()
    return [
        (
            task.name,
            f"{name}, {task.group}, "
            f"{f'{task.classes} classes' if task.classes else task.problem}. "
            f"{task.description}".rstrip(". "),
        )
        for name in chosen
        for task in load_suite(name).tasks
    ]


def _list_suites(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.task import load_suite, suites

    return [(name, load_suite(name).description) for name in suites()]


def _list_protocols(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.protocol import names

    return list(names().items())


def _list_runs(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench import api, leaderboard
    from petlbench.store import Store

    rows = []
    for folder in api.folders(options.results):
        for record in Store(folder).load()[0]:
            if record["status"] == "done":
                spec, test = record["spec"], record["test"]
                kept = (folder / "artifacts" / f"{record['key']}.safetensors").is_file()
                text = f"{spec['suite']} {spec['task']}, {spec['method']['label']}, "
                text += f"seed {spec['seed']}, {spec['backbone']['name']}, "
                text += f"{spec['protocol']['epochs']} epochs, comparison {record['fingerprint']}: "
                metric = test.get("metric", "accuracy")
                text += f"{metric.replace('_', ' ')} {100 * leaderboard.metrics(test)[metric]:.1f}%"
                rows.append((record["key"], text + ("" if kept else " (weights not kept)")))
    return rows


def _list_backbones(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.weights import BACKBONES

    others = [
        ("vit_*, deit_*, swin_*", "any other plain vision transformer or Swin of timm"),
        ("...", "any other timm model without BatchNorm, for full, linear, bitfit, layernorm, ..."),
        (
            "clip:NAME, clip:NAME.TAG",
            "any CLIP of open_clip with plain towers, or its config .json",
        ),
    ]
    return [*BACKBONES.items(), *others]


_LISTINGS = {
    "runs": _list_runs,
    "methods": _list_methods,
    "presets": _list_presets,
    "tasks": _list_tasks,
    "suites": _list_suites,
    "protocols": _list_protocols,
    "backbones": _list_backbones,
}


def board(options: argparse.Namespace) -> None:
    from petlbench import leaderboard
    from petlbench.store import write_text

    by_extension = {".csv": "csv", ".md": "markdown", ".json": "json"}
    extension = by_extension.get(options.output.suffix) if options.output else "table"
    if options.output and (extension or options.format) != (options.format or extension):
        raise UsageError(f"{options.output} is not a name for {options.format}.")
    form = options.format or extension
    if form is None:
        raise UsageError(f"{options.output}: end it in {', '.join(by_extension)}.")
    if form not in FORMATS:
        raise unknown("format", form, FORMATS)
    chosen = _boards(options)
    if form == "table":
        if options.output:
            raise UsageError("the table is for the screen; for a file: --format csv|markdown|json")
        leaderboard.print_table(chosen, _console())
        return
    text = {
        "csv": leaderboard.to_csv,
        "markdown": leaderboard.to_markdown,
        "json": leaderboard.to_json,
    }[form](chosen)
    if options.output:
        _save(lambda: write_text(options.output, text), options.output)
    else:
        print(text, end="" if text.endswith("\n") else "\n")


def _boards(options: argparse.Namespace) -> list[Leaderboard]:
    from petlbench import api

    found, problems = api.boards(options.results, getattr(options, "metric", None))
    for problem in problems:
        print(f"petlbench: {problem}", file=sys.stderr)
    return api.select(found, options.fingerprint)


def plot(options: argparse.Namespace) -> None:
    if options.kind not in PLOTS:
        raise unknown("plot", options.kind, PLOTS)
    from petlbench import api, leaderboard
    from petlbench import plot as drawing

    records = api.finished(options.results)
    chosen = drawing.candidates(options.kind, _boards(options), records)
    if len(chosen) > 1:
        differ = "\n".join(f"  {line}" for line in leaderboard.differences(chosen))
        names = "\n".join(
            f"  --fingerprint {b.fingerprint}  ({leaderboard.subject(b)}; {len(b.rows)} methods)"
            for b in chosen
        )
        raise UsageError(
            f"{options.results} holds {len(chosen)} comparisons that must not share a plot:\n"
            f"{differ}\nChoose one:\n{names}"
        )
    output = options.output or Path(f"{options.kind.replace('-', '_')}.png")
    _save(lambda: drawing.draw(options.kind, chosen[0], records, output), output)


def _save(write: Any, file: Path) -> None:
    try:
        write()
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}.") from error
    print(f"wrote {file}")


def benchmark(options: argparse.Namespace) -> None:
    from rich.markup import escape
    from rich.table import Table

    from petlbench import benchmark
    from petlbench.task import load_suite, suites

    console = _console()
    declared = [name for name in suites() if load_suite(name).tasks]
    for name in [options.suite] if options.suite or options.plan else declared:
        options.suite = name
        plan = _make_plan(options, sketch=True)
        with _status(f"measuring {plan.specs[0].backbone.name}, a few seconds per method"):
            measured = benchmark.measure(plan, options.fresh)
        for line in measured.subject:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        table = Table()
        for i, column in enumerate(benchmark.COLUMNS):
            table.add_column(column, justify="right" if i else "left")
        for row in measured.rows:
            table.add_row(*map(escape, row.cells()))
        console.print(table)
    console.print(benchmark.EXPLAINED, markup=False, highlight=False, soft_wrap=True)


def check(options: argparse.Namespace) -> int:
    from petlbench import method
    from petlbench.check import check as findings_of

    if options.all == bool(options.methods):
        raise UsageError("say which methods to check, or --all: petlbench check convpass")
    if options.all:
        return _check_all()
    sound = True
    for reference in options.methods:
        cls = method.load(reference)
        print(f"{reference}: {(cls.__doc__ or '').strip().splitlines()[0] if cls.__doc__ else ''}")
        findings = list(findings_of(method.create(cls, reference, {})))
        for finding in findings:
            if finding.refused:
                print(f"  refuses        {finding.model}: {finding.detail}")
        for claim in dict.fromkeys(f.claim for f in findings if not f.refused):
            failed = [f for f in findings if f.claim == claim and not f.holds]
            print(f"  {'holds        ' if not failed else 'DOES NOT HOLD'}  {claim}")
            for finding in failed:
                print(f"                   on {finding.model}: {finding.detail}")
        holds = all(finding.holds for finding in findings)
        sound &= holds
        verdict = "is sound" if holds else "is NOT sound"
        checks = [finding for finding in findings if not finding.refused]
        models = len({finding.model for finding in checks})
        print(f"  {reference} {verdict} ({len(checks)} checks on {models} tiny models)")
    return 0 if sound else 1


def _check_all() -> int:
    """A row per built-in method as it is done: the verdict, its count on ViT-B/16, seconds."""
    from petlbench import method
    from petlbench.check import check as findings_of
    from petlbench.check import count_on_vit_b16

    print(f"{'method':<18}{'verdict':<15}{'claims':>7}{'refuses':>9}{'ViT-B/16':>13}{'seconds':>9}")
    sound = True
    for name in method.builtin():
        begin = time.perf_counter()
        built = method.load(name)()
        findings = list(findings_of(built))
        failed = [f for f in findings if not f.holds]
        refused = sum(f.refused for f in findings)
        sound &= not failed
        print(
            f"{name:<18}{'DOES NOT HOLD' if failed else 'holds':<15}{len(findings) - refused:>7}"
            f"{refused:>9}{count_on_vit_b16(built):>13,}{time.perf_counter() - begin:>9.1f}",
            flush=True,
        )
        for finding in failed:
            print(f"    {finding.claim}, on {finding.model}: {finding.detail}")
    print("claims: measured on tiny models; refuses: tiny models that the method does not fit;")
    print("ViT-B/16: trainable parameters, declared and measured, without the head")
    return 0 if sound else 1


def predict(options: argparse.Namespace) -> None:
    from petlbench.adapted import image_files
    from petlbench.store import write_text

    if options.output and options.output.suffix != ".csv":
        raise UsageError(f"{options.output}: predictions are written as .csv.")
    files = image_files(options.images)  # before the model is built
    text = _load_adapted(options).predict(files).to_csv(index=False, float_format="%.4f")
    if options.output is None:
        print(text, end="")
        return
    _save(lambda: write_text(options.output, text), options.output)


def export(options: argparse.Namespace) -> None:
    import timm

    from petlbench import adapted
    from petlbench.weights import EMBEDDED

    model = _load_adapted(options)
    default = f"{model.spec.key}{'.merged' if options.merge else ''}.safetensors"
    file = options.output or Path(default)
    adapted.export(model, file, options.merge)
    print(f"wrote {file}")
    if not options.merge:
        print(f"what was trained, without the backbone; use it: petlbench predict --run {file}")
        return
    spec = model.spec
    size, name, classes = spec.rules["image_size"], spec.backbone.name, spec.classes
    if timm.is_model(name):
        print(
            f"load it: timm.create_model({name!r}, checkpoint_path={str(file)!r}, "
            f"num_classes={classes}, img_size={size})"
        )
    elif name == EMBEDDED:
        print(
            "load it: from timm.models import VisionTransformer; from safetensors.torch import "
            "load_file; from petlbench.mini import ARCHITECTURE; model = VisionTransformer("
            f"**ARCHITECTURE, num_classes={classes}, img_size={size}); "
            f"model.load_state_dict(load_file({str(file)!r}))"
        )
    else:
        print("it holds the state dict of the model by open_clip, and head.* of a trained head")


def _load_adapted(options: argparse.Namespace) -> Any:
    from petlbench.adapted import load_adapted

    return load_adapted(
        options.run, options.results, options.checkpoint, options.method, options.device
    )


def _status(text: str, show: bool = True) -> AbstractContextManager[Any]:
    """A spinner on standard error while something takes seconds; silent in a pipe."""
    from rich.console import Console

    return Console(stderr=True).status(text) if show else nullcontext()


def _console() -> Console:
    from rich.console import Console

    class Quiet(Console):
        def on_broken_pipe(self) -> None:  # `petlbench plan | head` ends quietly, see main
            raise BrokenPipeError

    # a pipe has no width: do not let the table wrap at 80 columns there
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or 120)
    return Quiet(width=width)


def data(options: argparse.Namespace) -> int:
    chosen = options.data_root or os.environ.get("PETLBENCH_DATA")
    root = Path(chosen).expanduser() if chosen else None
    if options.verb == "list":
        return _data_list(options, root)
    if root is None:
        raise UsageError("where do the data sets lie? Give --data-root DIR or set PETLBENCH_DATA.")
    return {"prepare": _data_prepare, "verify": _data_verify}[options.verb](options, root)


def _data_list(options: argparse.Namespace, root: Path | None) -> int:
    from rich.markup import escape
    from rich.table import Table

    from petlbench.prepare import overview

    console = _console()
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
        for line in overview.reasons(found):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _data_prepare(options: argparse.Namespace, root: Path) -> int:
    from petlbench.prepare import copies, originals, overview, sources

    suite = overview.preparable(options.suite)
    tasks = suite.select(options.tasks)
    if bool(options.raw) == bool(options.copy) or (options.copy and options.download):
        raise UsageError(
            "say what to prepare from: --raw DIR, the original data sets (with --download: get "
            "them), or --from COPY, a prepared copy."
        )
    with _bars() as progress:
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
            print(f"{what}: {', '.join(names)}")
    if not outcome.failed:
        only = ["--tasks", ",".join(options.tasks)] if options.tasks else []
        again = ["petlbench", "run", "--suite", suite.name, "--data-root", str(root), *only]
        print(f"next: {shlex.join(again)}")
        return 0
    grouped: dict[str, list[str]] = {}
    for name, reason in outcome.failed.items():
        grouped.setdefault(reason, []).append(name)
    lines = [f"{', '.join(names)}: {reason}" for reason, names in grouped.items()]
    count = f"{len(outcome.failed)} of {len(tasks)} tasks could not be prepared"
    print("\n".join([f"petlbench: {count}.", *lines]), file=sys.stderr)
    return 2


def _data_verify(options: argparse.Namespace, root: Path) -> int:
    from petlbench.prepare import overview
    from petlbench.prepare.verify import verify

    sound = True
    for suite in overview.on_disk(options.suite):
        for task in overview.present(suite, options.tasks, root):
            with _bars() as progress:
                report = verify(suite.at(root), task, root, progress)
            sound &= not report.problems
            verdict = "DIFFERS" if report.problems else report.verdict
            print(f"{task.name}: {report.images:,} images, {verdict}", flush=True)
            for line in (*report.problems, *(f"note: {note}" for note in report.notes)):
                print(f"  {line}")
    return 0 if sound else 1


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing that is being done, called with (what, done, total)."""
    from rich import progress
    from rich.console import Console

    columns = progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn()
    text = progress.TextColumn("{task.description}", markup=False)
    console = Console(stderr=True)
    shown: dict[str, progress.TaskID] = {}
    with progress.Progress(
        text, *columns, console=console, disable=not sys.stderr.isatty()
    ) as display:

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = display.add_task(what, total=total)
            display.update(shown[what], completed=done, total=total)
            if done >= total:
                display.remove_task(shown.pop(what))

        yield show


def cite(options: argparse.Namespace) -> None:
    from petlbench import api, cite
    from petlbench.store import write_text

    found = cite.Citations()
    named = options.methods or options.suite or options.tasks or options.backbone
    for folder in options.folders or ([] if named else ["results"]):
        cite.of_records(found, api.finished(folder))
    for reference in options.methods or ():
        found.method(reference)
    if options.suite:
        cite.of_suite(found, options.suite, options.tasks)
    elif options.tasks:
        raise UsageError("--tasks of which suite? Add --suite NAME.")
    if options.backbone:
        found.backbone(options.backbone)
    if options.output:
        _save(lambda: write_text(options.output, found.text()), options.output)
    else:
        print(found.text(), end="")


COMMANDS: dict[str, Any] = {
    "run": run,
    "plan": plan,
    "list": listing,
    "data": data,
    "leaderboard": board,
    "plot": plot,
    "cite": cite,
    "benchmark": benchmark,
    "check": check,
    "predict": predict,
    "export": export,
}

if __name__ == "__main__":
    main()
