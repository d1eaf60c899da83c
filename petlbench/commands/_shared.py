"""What commands share: arguments, what they choose, and how a command speaks and writes."""

from __future__ import annotations

import argparse
import atexit
import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from petlbench import backends
from petlbench.errors import UsageError, unknown
from petlbench.wording import count, visible

if TYPE_CHECKING:
    from rich.console import Console

    from petlbench.plan import Plan
    from petlbench.results import Results


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are told like all others, and whose options are typed in full."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options | {"allow_abbrev": False})

    def error(self, message: str) -> NoReturn:
        if "unrecognized arguments" in message:
            message += ". Lists take commas (--methods lora,linear), files and folders an option"
        raise UsageError(f"{message}.\nSee: {self.prog} --help")


# Arguments


def names(text: str) -> list[str]:
    """Of an argument A,B."""
    return [name.strip() for name in text.split(",") if name.strip()]


def whole(text: str) -> int:
    """Of an argument N."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def add_output(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help=text)


def add_format(parser: argparse.ArgumentParser, names: Iterable[str]) -> None:
    """How something is written, and where; `chosen_format` and `output` do so."""
    text = f"{'|'.join(names)} (default: that of FILE, or table)"
    parser.add_argument("--format", metavar="F", help=text)
    add_output(parser, "default: the screen")


def chosen_format(options: argparse.Namespace, endings: Mapping[str, str]) -> str:
    """The one that was asked for; else that of the file's ending; else a table.

    `endings`: format -> how its files end; of several with one ending the first is meant.
    """
    form, file = options.format, options.output
    if form and form not in endings:
        raise unknown("format", form, endings)
    if file is None:
        return form or "table"
    if form is None:
        form = next((name for name, ending in endings.items() if ending == file.suffix), None)
        if form is None:
            raise UsageError(f"{file}: end it in {', '.join(dict.fromkeys(endings.values()))}.")
    elif file.suffix != endings[form]:
        raise UsageError(f"{file}: a file of format {form} ends in {endings[form]}.")
    return str(form)


def add_metric(parser: argparse.ArgumentParser) -> None:
    """Another metric of the `comparisons`."""
    text = "another one than the tasks' own, as in: balanced_accuracy, macro_f1, t2i_r1"
    parser.add_argument("--metric", metavar="M", help=text)


def add_results(parser: argparse.ArgumentParser, suite: bool = True) -> None:
    """Which comparison is read; `comparisons` finds it. `suite`: whether that may choose it."""
    add = parser.add_argument
    add("--results", default="results", metavar="DIR", help="default: results")
    if suite:
        add("--suite", dest="only_suite", metavar="SUITE", help="only comparisons of this suite")
    add("--fingerprint", metavar="HASH", help="only the comparison with this fingerprint")


def comparisons(options: argparse.Namespace) -> list[Results]:
    """Those that `add_results` asks for; what cannot be read is told."""
    return load(options)[0]


def load(options: argparse.Namespace) -> tuple[list[Results], list[str]]:
    """`comparisons`, and what was told."""
    from petlbench import api, results

    found, problems = results.load(options.results, getattr(options, "metric", None))
    warn(problems)
    chosen = api.select(found, options.fingerprint, getattr(options, "only_suite", None))
    return chosen, problems


def only(found: Sequence[Results], options: argparse.Namespace, what: str) -> Results:
    """The one of these `comparisons`; several must not share `what` (a plot), so one is chosen."""
    from petlbench import leaderboard

    if len(found) == 1:
        return found[0]
    boards = [each.board for each in found]
    differ = "\n".join(f"  {line}" for line in leaderboard.differences(boards))
    names = "\n".join(
        f"  --fingerprint {b.fingerprint}  ({leaderboard.subject(b)}; {len(b.rows)} methods)"
        for b in boards
    )
    raise UsageError(
        f"{options.results} holds {len(found)} comparisons, which must not share {what}:\n"
        f"{differ}\nChoose one:\n{names}"
    )


def add_adapted(parser: argparse.ArgumentParser) -> None:
    """Which finished run is used; `load_adapted` makes its model."""
    add = parser.add_argument
    text = "a run's key or its first digits (petlbench list runs), or a stored .safetensors"
    add("--run", required=True, metavar="KEY", help=text)
    add("--results", default="results", metavar="DIR", help="where the run is (default: results)")
    add("--checkpoint", metavar="FILE", help="the backbone's, if the run was given one")
    add("--method", metavar="FILE", help="the method's file, if it is your own")
    add("--device", default="cpu", metavar="D", help="cpu (default) or cuda")


def load_adapted(options: argparse.Namespace) -> Any:
    from petlbench.adapted import load_adapted

    return load_adapted(
        options.run, options.results, options.checkpoint, options.method, options.device
    )


def add_request(parser: argparse.ArgumentParser, suite: str = "mini") -> None:
    """What is to be run; `make_plan` plans it. `suite` is told as the default."""
    add = parser.add_argument
    add(
        "--plan",
        type=Path,
        metavar="FILE",
        help="a TOML file: suite, methods, seeds, ..., [settings]",
    )
    add("--suite", help=f"default: {suite}")
    add("--tasks", type=names, metavar="A,B", help="default: all of the suite")
    add("--methods", type=names, metavar="A,B", help="names or ./file.py")
    add(
        "--preset",
        action="extend",
        type=names,
        dest="presets",
        metavar="A,B",
        help="settings per task: convpass.released, or ./convpass.mine.toml",
    )
    add("--backbone", metavar="NAME", help="a timm model or clip:NAME (default: the suite's)")
    add("--checkpoint", metavar="FILE", help=".safetensors, .npz, .pth, .pt, or: random")
    add("--data-root", metavar="DIR", help="where the datasets lie (or set PETLBENCH_DATA)")
    add("--protocol", metavar="NAME", help="a name or ./file.toml (default: the suite's)")
    add("--seeds", type=whole, metavar="N", help="run seeds 0..N-1")
    text = "choose settings by N trials for every method and task, on validation images"
    add("--search", type=whole, metavar="N", help=text)
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
    add("--jobs", type=whole, metavar="N", help="runs at a time (default: what fits)")
    add("--threads", type=whole, metavar="N", help="CPU threads per run and device")
    text = "GPUs that share each run, or with --device cpu processes (default: 1)"
    add("--devices-per-run", type=whole, metavar="N", help=text)
    known = ", ".join(backends.names())
    add("--backend", metavar="B", help=f"where runs are executed: {known}; by default local")
    add(
        "--resource",
        action="append",
        default=[],
        metavar="X=V",
        help="of the backend: timeout_min=240, slurm_partition=gpu; address=HOST:PORT of ray, dask",
    )
    add("--attention", metavar="A", help="auto (the faster one here), explicit or fused kernel")
    flag: dict[str, Any] = {"action": "store_true", "default": None}
    add("--recompute", **flag, help="activations twice: less memory, same result, slower")
    add(
        "--compile",
        **flag,
        help="torch.compile and CUDA graphs: a minute more at the start of each process",
    )
    text = "show the test accuracy over training too; it chooses nothing, and the record says so"
    add("--report-peek", **flag, help=text)
    add("--keep", metavar="K", help="all, predictions or none, beside each record (default: all)")


def add_fresh(parser: argparse.ArgumentParser) -> None:
    text = "measure again what this machine remembers of its speed"
    parser.add_argument("--fresh", action="store_true", help=text)


def make_plan(options: argparse.Namespace, sketch: bool = False) -> Plan:
    import dataclasses

    from petlbench import plan
    from petlbench.request import Request, from_file

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
    fields = {field.name for field in dataclasses.fields(Request)} - {"settings", "resources"}
    changes = {n: getattr(options, n) for n in fields if getattr(options, n) is not None}
    if settings:
        changes["settings"] = settings
    if options.resource:
        changes["resources"] = dict(map(_resource, options.resource))
    request = from_file(options.plan, changes) if options.plan else Request(**changes)
    gc.disable()  # looking for garbage among imports and specs takes a third of the time
    try:
        return plan.make(request, sketch)
    finally:
        gc.freeze()  # they stay until the end,
        atexit.register(gc.unfreeze)  # which is told, as it would take 50 MB more
        gc.enable()


def _resource(text: str) -> tuple[str, Any]:
    """Its value is read as in TOML where it can be: 240 is a number, gpu is text."""
    import tomllib

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise UsageError(f"--resource {text}: write it as NAME=VALUE, as in timeout_min=240.")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def print_plan(plan: Plan, measure: bool = False, fresh: bool = False) -> None:
    """What is done, what is to go, how, and for how long; `measure` where no speed is known."""
    from petlbench import estimate
    from petlbench.benchmark import duration, manner

    first, done = plan.specs[0], len(plan.specs) - len(plan.todo)
    failed = f" ({plan.failed} failed before)" if plan.failed else ""
    with status("measuring how fast the methods are here", measure):
        wall, source = estimate.wall_seconds(plan, measure, fresh)
    say(
        f"{first.suite}: {count(len(plan.specs), 'run')}, {done} done, {len(plan.todo)} to go"
        f"{failed}",
        f"backbone {first.backbone.name} ({first.backbone.checkpoint[:12]}), protocol "
        f"{first.protocol}, fingerprint {first.fingerprint}",
    )
    if plan.todo:
        otherwise = "known once runs are recorded" if measure else "see petlbench plan"
        told = f"{duration(wall)}, from {source}" if wall else otherwise
        say(f"{manner(plan)}; results in {plan.store.folder}", f"estimated time: {told}")
    say(*plan.notes)
    warn(_spoilt(plan))


def _spoilt(plan: Plan) -> Iterator[str]:
    """A sentence for each run to go that has a record already, which does not count."""
    from petlbench.store import read_file

    folder = plan.store.records
    there = set(os.listdir(folder)) if plan.todo and folder.is_dir() else set()
    for spec in plan.todo:
        if f"{spec.key}.json" in there:
            record, why = read_file(folder / f"{spec.key}.json")
            if record is None:
                yield f"{why} Its run counts as not done."


# Speaking and writing


def say(*lines: str) -> None:
    """On the screen, as text and at once, also into a pipe."""
    for line in lines:
        print(visible(line), flush=True)


def warn(problems: Iterable[str]) -> None:
    """On standard error: sentences about what was left out, or what went wrong."""
    for problem in problems:
        print(f"petlbench: {visible(problem)}", file=sys.stderr)


def console() -> Console:
    """For tables."""
    from petlbench import screen

    # a pipe has no width: do not let the table wrap at 80 columns there
    width = None if sys.stdout.isatty() else int(os.environ.get("COLUMNS") or 120)
    return screen.console(width=width)


def status(text: str, show: bool = True) -> AbstractContextManager[Any]:
    """A spinner on standard error while something takes seconds; silent in a pipe."""
    from rich.markup import escape

    from petlbench import screen

    shown = escape(visible(text))  # a spinner takes no part in the console's reading of strings
    return screen.console(stderr=True).status(shown) if show else nullcontext()


@contextmanager
def bars() -> Iterator[Callable[[str, int, int], None]]:
    """A bar for each thing that is being done, called with (what, done, total)."""
    from rich import progress

    from petlbench import screen

    columns = progress.BarColumn(), progress.MofNCompleteColumn(), progress.TimeRemainingColumn()
    text = progress.TextColumn("{task.description}", markup=False)
    console = screen.console(stderr=True)
    shown: dict[str, progress.TaskID] = {}
    with progress.Progress(
        text, *columns, console=console, disable=not sys.stderr.isatty()
    ) as display:

        def show(what: str, done: int, total: int) -> None:
            if what not in shown:
                shown[what] = display.add_task(visible(what), total=total)
            display.update(shown[what], completed=done, total=total)
            if done >= total:
                display.remove_task(shown.pop(what))

        yield show


def save(write: Callable[[], object], file: Path) -> None:
    """`write` the file, and say so.

    Raises:
        UsageError: It cannot be written.
    """
    try:
        write()
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}.") from error
    say(f"wrote {file}")


def output(text: str, file: Path | None) -> None:
    """To the file of `--output`, into a pipe as it is, or to the screen."""
    from petlbench.store import write_text

    if file is None:
        shown = visible(text) if sys.stdout.isatty() else text
        print(shown, end="" if text.endswith("\n") else "\n")
    else:
        save(lambda: write_text(file, text), file)
