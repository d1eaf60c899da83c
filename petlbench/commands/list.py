"""what there is to choose from"""

from __future__ import annotations

import argparse
from collections.abc import Callable

from petlbench import wording
from petlbench.commands import _shared as shared
from petlbench.errors import UsageError, unknown

ORDER = 40


def add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", metavar="|".join(LISTS))
    parser.add_argument("--suite", help="with tasks or runs: only this suite")
    text = "with runs: where (default: results)"
    parser.add_argument("--results", default="results", metavar="DIR", help=text)
    parser.add_argument(
        "--format", metavar="markdown", help="with methods: a table of ours, measured in a minute"
    )
    text = "with --format: a file, between <!-- methods:begin --> and <!-- methods:end -->"
    shared.add_output(parser, text)


def run(options: argparse.Namespace) -> None:
    if options.what not in LISTS:
        raise unknown("list", options.what, LISTS)
    if options.format or options.output:
        return _methods_table(options)
    rows = LISTS[options.what](options)
    width = max((len(name) for name, _ in rows), default=0)
    for name, text in rows:
        shared.say(" ".join(f"{name:<{width}}  {text}".splitlines()).rstrip())


def _methods_table(options: argparse.Namespace) -> None:
    if (options.what, options.format) != ("methods", "markdown"):
        raise UsageError("what can be written as a table: petlbench list methods --format markdown")
    from petlbench import methods_table
    from petlbench.method import builtin

    if options.output:
        methods_table.insert("", options.output)  # a place for it? Before measuring
    with shared.status("attaching every method to tiny models, a second or two each"):
        table = methods_table.to_markdown(builtin())
    text = methods_table.insert(table, options.output) if options.output else table
    shared.output(text, options.output)


def _methods(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.method import builtin, families, installed, members, settings_text, summary

    rows = [
        (name, f"{summary(file)}{''.join(f' [{defaults}]' for defaults in settings_text(file))}")
        for name, file in builtin().items()
    ]
    for family, file in families().items():
        rows += [(f"{family}:{name}", text) for name, text in members(file).items()]
    return rows + [(name, f"from {point.value}") for name, point in installed().items()]


def _tasks(options: argparse.Namespace) -> list[tuple[str, str]]:
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


def _suites(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.task import load_suite, suites

    return [(name, load_suite(name).description) for name in suites()]


def _protocols(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.protocol import names

    return list(names().items())


def _backbones(options: argparse.Namespace) -> list[tuple[str, str]]:
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


def _presets(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench.presets import builtin, load

    return [(name, load(name).summary) for name in builtin()]


def _runs(options: argparse.Namespace) -> list[tuple[str, str]]:
    from petlbench import leaderboard
    from petlbench.results import folders
    from petlbench.store import Store

    rows = []
    for folder in folders(options.results):
        store = Store(folder)
        records, problems = store.load()
        shared.warn(problems)
        for record in records:
            if record["status"] == "done" and options.suite in (None, record["spec"]["suite"]):
                spec, test = record["spec"], record["test"]
                kept = (store.artifacts / f"{record['key']}.safetensors").is_file()
                text = f"{spec['suite']} {spec['task']}, {spec['method']['label']}, "
                text += f"seed {spec['seed']}, {spec['backbone']['name']}, "
                text += f"{spec['protocol']['epochs']} epochs, comparison {record['fingerprint']}: "
                metric = test.get("metric", "accuracy")
                text += f"{wording.metric(metric)} {100 * leaderboard.metrics(test)[metric]:.1f}%"
                rows.append((record["key"], text + ("" if kept else " (weights not kept)")))
    return rows


LISTS: dict[str, Callable[[argparse.Namespace], list[tuple[str, str]]]] = {
    "methods": _methods,
    "tasks": _tasks,
    "suites": _suites,
    "protocols": _protocols,
    "backbones": _backbones,
    "presets": _presets,
    "runs": _runs,
}
