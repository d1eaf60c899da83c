"""What is made of a request: its runs, those of them that are done, and how to execute the rest."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench import (
    judged,
    method,
    opened,
    problems,
    protocol,
    rows,
    search,
    settings,
    weights,
)
from petlbench.errors import UsageError
from petlbench.request import Request
from petlbench.spec import RunSpec, identify_all
from petlbench.store import Store
from petlbench.task import load_suite

if TYPE_CHECKING:
    from petlbench.backbone import Shape
    from petlbench.experiment import Machine


@dataclass(frozen=True)
class Plan:
    """All runs of a request, and those of them that are still to do (failed ones included)."""

    request: Request
    specs: list[RunSpec]
    todo: list[RunSpec]
    failed: int  # of those to do, how many failed before
    store: Store
    device: str
    data_root: str | None
    done: list[RunSpec]  # whose records count
    sizes: dict[str, tuple[int, int]]  # task -> training and test images
    trials: dict[str, int]  # key -> trials to make before that run; they serve other seeds too
    trial_sizes: dict[str, tuple[int, int]]  # the same of a trial
    shape: Shape  # of the backbone
    notes: list[str]

    def workers(self) -> tuple[int, int]:
        """(runs at a time, threads of each of their processes), by default.

        On a GPU one run, or several where one leaves most of it idle (measured); on a CPU as many
        as there are cores and memory for, at most 4: small models do not fill several cores.
        The same for a resumed sweep as for a fresh one, since threads decide the last bits. Runs on
        several devices leave none of them to others.
        """
        jobs, ranks = self.request.jobs, self.request.devices_per_run
        if self.request.elsewhere:  # the engine decides how many find a place
            return min(jobs or len(self.specs), len(self.specs)), self.request.threads or 1
        cores = usable_cores()
        if jobs is None:
            first = self.specs[0]
            if self.device == "cpu":
                jobs = min(4, cores, _fit(_memory(), self.shape, first.rules)) // ranks
            elif self.device == "cuda":
                import torch

                from petlbench import speed

                jobs = torch.cuda.device_count() // ranks
                if ranks == 1:
                    memory = torch.cuda.get_device_properties(0).total_memory
                    measured = speed.runs_per_gpu(first, self.request.compile)
                    jobs *= max(1, min(measured, _fit(memory, self.shape, first.rules)))
            else:
                jobs = 1
            jobs = max(1, min(jobs, len(self.specs)))
        return jobs, self.request.threads or max(1, cores // (jobs * ranks))

    @functools.cached_property
    def machine(self) -> Machine:
        """How the runs are executed; the faster attention kernel is measured here and now."""
        from petlbench import speed
        from petlbench.experiment import Machine

        jobs, threads = self.workers()
        request, rules = self.request, self.specs[0].rules
        kernel = request.attention
        if kernel == "auto" and request.elsewhere:
            kernel = "explicit" if self.device == "cpu" else "fused"  # the usual choice
        elif kernel == "auto":
            bf16 = rules["precision"] == "bf16"
            kernel = speed.attention(self.shape, rules["batch_size"], bf16, self.device, threads)
        return Machine(
            self.device,
            threads,
            jobs,
            self.data_root,
            request.keep,
            kernel,
            request.recompute,
            request.compile,
            workers=self._helpers(jobs, threads),
            peek=request.report_peek,
            devices_per_run=request.devices_per_run,
        )

    def _helpers(self, jobs: int, threads: int) -> int:
        """Processes that prepare augmented images, for each device of a run."""
        if self.device == "cpu":
            return 0
        ranks = jobs * self.request.devices_per_run
        return min(8, threads if self.request.elsewhere else usable_cores() // ranks)


def make(request: Request, sketch: bool = False) -> Plan:
    """Expand and validate everything before anything runs.

    A sketch reads neither images nor weights: it has the declared split sizes and random weights,
    and serves to measure speeds.
    """
    data_root = request.data_root or os.environ.get("PETLBENCH_DATA")
    root = Path(data_root).expanduser() if data_root else None
    suite = load_suite(request.suite).at(root)
    tasks = suite.select(list(request.tasks) if request.tasks is not None else None)
    rules_of = protocol.load(request.protocol or suite.protocol)
    rules_of = protocol.override(rules_of, _protocol_settings(request))
    choosing = _choosing(rules_of) if request.search else ()
    methods = rows.read(request, rules_of, suite, tasks)
    device = request.device if request.elsewhere else _device(request.device)
    if request.devices_per_run > 1:
        from petlbench import parallel

        parallel.require(request.devices_per_run, device, request.elsewhere, request.resources)
    seeds = range(request.seeds or rules_of.seeds)
    splits = rules_of.train_split, rules_of.test_split
    read = opened.sketch if sketch else opened.read
    members, sizes, trial_sizes, lineage = read(suite, tasks, splits, choosing, root, seeds)
    checkpoint = weights.RANDOM if sketch else request.checkpoint
    backbone = weights.specify(request.backbone or suite.backbone, checkpoint)
    if request.elsewhere and rules_of.precision == "auto":
        raise UsageError(
            f"--backend {request.backend}: precision = auto is measured, and this machine cannot "
            "measure others; say --precision bf16 or --precision fp32."
        )
    rules = _resolve(rules_of, backbone.name, device, searching=bool(choosing))
    classifying = [task for task in tasks if task.problem == "classification"]
    if rules.get("head") == "text" and classifying:
        for name, names in opened.class_names_of(classifying, root, sketch).items():
            for seed in seeds:
                members[name, seed] |= {"classes": "\n".join(names)}
    # a crop, a checkpoint or an image size that does not fit: now, not in every run
    _require_crop(rules)
    shape = weights.shape(backbone, rules["image_size"], **weights.options(rules))
    store = Store(request.folder)
    recorded = judged.look(store.records)  # before specs take memory
    specs = [
        RunSpec(
            suite=suite.name,
            task=task.name,
            group=task.group,
            classes=task.classes,
            seed=seed,
            method=row[task.name][0],
            backbone=backbone,
            protocol=rules_of.name,
            rules=rules,
            members=members[task.name, seed],
            problem=task.problem,
            ordinal=task.ordinal,
            lineage=lineage[task.name],
            search=row[task.name][1],
        )
        for seed in seeds
        for task in tasks
        for row in methods
    ]
    identify_all(specs)
    _require(specs, shape)
    opened.refuse_other(store, specs, recorded | judged.look(store.failed))
    done: list[RunSpec] = []
    todo: list[RunSpec] = []
    for spec in specs:
        found = recorded.get(spec.key)
        counts = found and found.done and (found.peek or not request.report_peek)
        (done if counts else todo).append(spec)
    return Plan(
        request=request,
        specs=specs,
        todo=todo,
        failed=len({file.stem for file in store.failed.glob("*.json")} & {s.key for s in todo}),
        store=store,
        device=device,
        data_root=str(root.resolve()) if root else None,
        notes=[*opened.subsets(tasks, sizes, rules), *_searches(specs)],
        done=done,
        sizes=sizes,
        trials=_trials(todo, store),
        trial_sizes=trial_sizes,
        shape=shape,
    )


def _trials(todo: Sequence[RunSpec], store: Store) -> dict[str, int]:
    """Key -> trials that are not recorded, of the first run of each method and task."""
    first: dict[tuple[str, str], RunSpec] = {}
    for spec in todo:
        if spec.search:
            first.setdefault((spec.method.label, spec.task), spec)
    recorded = judged.look(store.trials) if first else {}
    return {spec.key: search.left(spec, recorded) for spec in first.values()}


def _require_crop(rules: Mapping[str, Any]) -> None:
    """Sizes of images that go together, in tests and under the augmentation."""
    from petlbench.data import cache

    cache.Geometry.of(dict(rules))
    if rules["augmentation"] != "none":
        from petlbench.data import augment  # its libraries take a second to import

        augment.RECIPES[rules["augmentation"]](dict(rules))


def _require(specs: Sequence[RunSpec], shape: Shape) -> None:
    """Each method asked once whether it fits: most rows have one for all tasks."""
    for spec in {(id(spec.method), spec.problem): spec for spec in specs}.values():
        try:
            built = spec.method.build()
            built.require(shape)
            count = built.num_trainable(shape)
            if not isinstance(count, int):
                raise UsageError(f"num_trainable gives {count!r:.80}, which is no whole number.")
            problems.load(spec.problem).require(built, spec, count)
        except UsageError as error:
            name = spec.backbone.name
            raise UsageError(f"method {spec.method.label} does not fit {name}: {error}") from None
        except Exception as error:  # of a method of somebody's own
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise UsageError(
                f"method {spec.method.label} cannot be asked whether it fits: "
                f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})"
            ) from error


def _protocol_settings(request: Request) -> dict[str, Any]:
    cls, values = protocol.Protocol, {}
    for key, value in request.settings.items():
        owner, _, name = key.partition(".")
        if owner == "protocol":
            text = isinstance(value, str)
            values[name] = settings.parse(cls, "protocol", name, value) if text else value
    if request.search:  # what was set is not searched
        fixed = {f"search_{name}": () for name in search.RULES if name in values}
        values = fixed | values
    return values


def _choosing(rules: protocol.Protocol) -> tuple[str, str]:
    """The splits of a search. Refuses what it cannot draw from, or would choose on unfairly."""
    for name in search.RULES:
        for value in getattr(rules, f"search_{name}"):
            try:
                protocol.override(rules, {name: value})
            except UsageError as error:
                raise UsageError(f"protocol.search_{name}: {error}") from None
    training, judging = rules.search_train_split, rules.search_val_split
    if judging in training:  # val200 is part of train800val200
        raise UsageError(
            f"protocol.search_val_split = {judging!r} is part of protocol.search_train_split = "
            f"{training!r}; a search must choose on images that its trials do not train on."
        )
    return training, judging


def _device(name: str) -> str:
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":  # mps only when asked for: its kernels round differently
        return "cuda" if present["cuda"] else "cpu"
    if not present.get(name, True):
        raise UsageError(f"--device {name}: PyTorch finds no such device here; use cpu or auto.")
    return name


def _resolve(
    chosen: protocol.Protocol, backbone: str, device: str, searching: bool
) -> dict[str, Any]:
    """The protocol's fields with "auto" and "checkpoint" replaced by what they mean here."""
    rules = chosen.rules()
    for name in () if searching else protocol.SEARCH:
        del rules[name]
    text = {name: rules.pop(name) for name in protocol.TEXT}
    default = {name: getattr(protocol.Protocol, name) for name in protocol.TEXT}
    if weights.reads_text(backbone):
        if text["head"] == "fresh" and text["towers"] != "image":
            raise UsageError(
                f"protocol.towers = {text['towers']!r} adapts a text tower, which a fresh head "
                "does not read; set also: --set protocol.head=text."
            )
        if text["head"] == "fresh":
            del text["prompt"]  # nothing reads it
        rules |= text
    elif text != default:
        changed = next(name for name in text if text[name] != default[name])
        raise UsageError(
            f"protocol.{changed} = {text[changed]!r} is for backbones with a text tower (clip:...);"
            f" {backbone} has none."
        )
    rules["mean"], rules["std"] = map(
        list, weights.normalisation(rules.pop("normalisation"), backbone)
    )
    if rules["precision"] == "auto":
        from petlbench import speed

        rules["precision"] = "bf16" if speed.bf16_pays(device) else "fp32"
    return rules


def _searches(specs: Sequence[RunSpec]) -> list[str]:
    """What is searched, and what is not because somebody chose it."""
    first = specs[0]
    if first.search is None:
        return []
    rules = first.rules
    notes = [
        f"search: {first.search['trials']} trials ({first.search['sampler']}) for each method and "
        f"task, trained on {rules['search_train_split']}, judged on {rules['search_val_split']}; "
        "all seeds use the winner."
    ]
    fixed = [name for name in search.RULES if not rules[f"search_{name}"]]
    if fixed:
        notes.append(f"search: {', '.join(fixed)} of the protocol: not searched, it is set.")
    for spec in {s.method.label: s for s in specs if s.search}.values():
        declared, space = method.load(spec.method.reference).search, (spec.search or {})["space"]
        if fixed := [name for name in declared if name not in space]:
            notes.append(f"search: {', '.join(fixed)} of {spec.method.label}: not searched, set.")
    return notes


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory() -> int:
    """Bytes of this machine."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30  # not told on Windows


def _fit(memory: int, shape: Shape, rules: Mapping[str, Any]) -> int:
    """How many runs fit side by side: weights, optimiser and activations of full fine-tuning."""
    kept = (  # for the backward pass
        block.num_tokens * (16 * block.dim + 4 * block.num_heads * block.attended)
        for block in shape.blocks
    )
    activations = 4 * rules["batch_size"] * sum(kept)
    return int(0.6 * memory / (5e8 + 16 * shape.num_parameters + activations))
