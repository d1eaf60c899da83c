"""What a command asks for: a request, expanded into run specs, and what is done of them."""

from __future__ import annotations

import functools
import os
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench import (
    backends,
    judged,
    method,
    opened,
    presets,
    problems,
    protocol,
    search,
    settings,
    toml,
    weights,
)
from petlbench.errors import UsageError, unknown
from petlbench.spec import RunSpec
from petlbench.store import Record, Store
from petlbench.task import Suite, Task, load_suite

if TYPE_CHECKING:
    from petlbench.backbone import Shape
    from petlbench.experiment import Machine
    from petlbench.speed import Speed

DEVICES = ("auto", "cpu", "cuda", "mps")
KEEP = ("all", "predictions", "none")
ATTENTION = ("auto", "explicit", "fused")
TELLING = 20  # records of a method that tell its speed: of every task of VTAB-1K, one at least


@dataclass(frozen=True)
class Request:
    """The arguments of `petlbench run` and `plan`; None stands for the suite's own choice.

    `methods` are names, files or entry points, or tables such as {"name": "convpass",
    "scale": 0.1}; `settings` maps "method.field" or "protocol.field" to a value (text is parsed);
    `presets` are names or files of settings per task: one row each, in the place of its method's.
    `search` is a number of trials, the same for every method (see search.py), by that `sampler`.
    `backend` is where runs are executed (see backends/), `resources` what is asked of it for them.
    `devices_per_run` is the number of GPUs, or of processes on a CPU, that share each run.
    """

    suite: str = "mini"
    methods: Sequence[str | Mapping[str, Any]] | None = None
    tasks: Sequence[str] | None = None
    backbone: str | None = None
    checkpoint: str | None = None
    data_root: str | None = None
    protocol: str | None = None
    seeds: int | None = None
    search: int | None = None
    sampler: str = "random"
    settings: Mapping[str, Any] = field(default_factory=dict)
    presets: Sequence[str] = ()
    results: str | None = None
    device: str = "auto"
    jobs: int | None = None
    threads: int | None = None
    devices_per_run: int = 1
    keep: str = "all"
    attention: str = "auto"
    recompute: bool = False
    compile: bool = False
    report_peek: bool = False
    backend: str = "local"
    resources: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, allowed in (("device", DEVICES), ("keep", KEEP), ("attention", ATTENTION)):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} = {getattr(self, name)!r}: choose one of {', '.join(allowed)}."
                )
        for name, kinds in (("methods", (str, Mapping)), ("tasks", str), ("presets", str)):
            values = getattr(self, name)
            if isinstance(values, str):  # methods="lora" means what it seems to
                object.__setattr__(self, name, values := (values,))
            for value in values or ():
                if not isinstance(value, kinds):
                    raise UsageError(f"{name}: {value!r} is not a name.")
        for name in ("seeds", "search", "jobs", "threads", "devices_per_run"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name} = {value!r} must be a whole number of at least 1.")
        for name in ("recompute", "compile", "report_peek"):
            if type(getattr(self, name)) is not bool:
                raise UsageError(f"{name} = {getattr(self, name)!r} must be true or false.")
        backends.load(self.backend).require(self.resources)
        if self.elsewhere and self.device == "auto":
            raise UsageError(
                f"--backend {self.backend}: this machine cannot tell what the others have; say "
                "--device cuda or --device cpu."
            )
        search.require(self.sampler)
        if self.sampler != "random" and self.search is None:
            raise UsageError(
                f"a sampler is for a search; say of how many trials: --search 20 --sampler "
                f"{self.sampler}"
            )
        object.__setattr__(self, "settings", _flat(self.settings))
        if self.methods is not None and not self.methods:
            raise UsageError("no methods given: --methods convpass,lora")

    @property
    def elsewhere(self) -> bool:
        """Whether other machines execute the runs."""
        return bool(backends.load(self.backend).ELSEWHERE)

    @property
    def measurable(self) -> bool:
        """Whether how fast runs will be can be tried here, on one device."""
        return not self.elsewhere and self.devices_per_run == 1

    @property
    def folder(self) -> Path:
        return Path(self.results).expanduser() if self.results else Path("results") / self.suite


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

    def seconds(self, spec: RunSpec, rate: Speed) -> float:
        """What one run costs at that speed, and the trials before it."""
        training, test = self.sizes[spec.task]
        cost = rate.run(training, spec.rules["epochs"], test)
        if trials := self.trials.get(spec.key, 0):
            training, test = self.trial_sizes[spec.task]
            cost += trials * rate.run(training, spec.rules["epochs"], test)
        return cost

    def seconds_left(self, todo: Sequence[RunSpec]) -> float | None:
        """What these runs cost in sum, as the recorded others tell; None where they do not."""
        from petlbench import speed

        keys = {spec.key for spec in todo}
        telling = self._telling(spec for spec in self.specs if spec.key not in keys)
        rates = {label: speed.from_records(r, self.sizes) for label, r in telling.items()}
        if any(spec.method.label not in rates for spec in todo):
            return None
        return sum(self.seconds(spec, rates[spec.method.label]) for spec in todo)

    def _telling(self, done: Iterable[RunSpec]) -> dict[str, list[Record]]:
        """Method label -> some records, which tell its speed."""
        found: dict[str, list[Record]] = {}
        for spec in done:
            of_method = found.setdefault(spec.method.label, [])
            if len(of_method) < TELLING and (record := self.store.read(spec.key)):
                of_method.append(record)
        return {label: records for label, records in found.items() if records}

    def wall_seconds(self, measure: bool = False, fresh: bool = False) -> tuple[float | None, str]:
        """Estimated time of what is to do, start-up included, and what the estimate rests on.

        Recorded runs of a method tell its speed, or this machine remembers it; what nothing is
        known of is measured for a few seconds each, or else the time is None. `fresh` measures
        again what is remembered. Of other machines, and of several devices, only records tell.
        """
        if not self.todo:
            return 0.0, ""
        from petlbench import speed

        machine = self.machine
        here = self.request.measurable
        rates = speed.known(self.todo, machine) if here and not fresh else {}
        done = self._telling(self.done)
        rates |= {label: speed.from_records(found, self.sizes) for label, found in done.items()}
        if measure and here:
            unknown = [spec for spec in self.todo if spec.method.label not in rates]
            rates |= speed.measure(unknown, machine)
        if any(spec.method.label not in rates for spec in self.todo):
            return None, ""
        costs = [self.seconds(spec, rates[spec.method.label]) for spec in self.todo]
        starts = 1 if machine.jobs == 1 else 2  # of this process, and of its workers
        wall = speed.makespan(costs, machine.jobs) + starts * speed.startup()
        count = sum(map(len, done.values()))
        source = [f"{count} recorded runs"] if count else []
        if any(spec.method.label not in done for spec in self.todo):
            source.append("speeds measured on this machine")
        return wall, " and ".join(source)


def request_from_file(path: Path, changes: Mapping[str, Any]) -> Request:
    """A request from a TOML file; `changes` (the command line) win over it."""
    values = toml.read(path, f"plan file {path}")
    known = {f.name: f.type for f in fields(Request)}
    for key, value in values.items():
        if key not in known:
            hint = "A field of the protocol goes under [settings.protocol]."
            raise unknown(f"key in plan file {path}", key, known, hint)
        kinds = _KINDS.get(key, str)
        if not isinstance(value, kinds) or isinstance(value, bool) != (kinds is bool):
            wanted = {
                list: "an array",
                dict: "a table",
                int: "a whole number",
                bool: "true or false",
            }.get(kinds, "text")
            raise UsageError(f"plan file {path}: {key} = {value!r} must be {wanted}.")
    if "backend" in changes and values.get("backend", changes["backend"]) != changes["backend"]:
        values.pop("resources", None)  # they are of the backend that the file names
    merged = {
        "settings": _flat(values.get("settings", {})) | changes.get("settings", {}),
        "resources": values.get("resources", {}) | changes.get("resources", {}),
    }
    return Request(**{**values, **changes, **merged})


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """{"protocol": {"epochs": 3}} and {"protocol.epochs": 3} alike as the latter."""
    flat: dict[str, Any] = {}
    for key, value in given.items():
        inner = value if isinstance(value, Mapping) else {None: value}
        flat |= {key if name is None else f"{key}.{name}": one for name, one in inner.items()}
    return flat


_KINDS: dict[str, type] = {
    "methods": list,
    "presets": list,
    "tasks": list,
    "settings": dict,
    "resources": dict,
    "seeds": int,
    "search": int,
    "jobs": int,
    "threads": int,
    "devices_per_run": int,
    "recompute": bool,
    "compile": bool,
    "report_peek": bool,
}


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
    rows = _methods(request, rules_of, suite, tasks)
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
        for row in rows
    ]
    _require(specs, shape)
    store = Store(request.folder)
    recorded = judged.look(store.records)
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
    return {spec.key: search.left(spec, store) for spec in first.values()}


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


Choice = tuple[method.MethodSpec, dict[str, Any] | None]  # and RunSpec.search


def _methods(
    request: Request, rules_of: protocol.Protocol, suite: Suite, tasks: Sequence[Task]
) -> list[dict[str, Choice]]:
    """One row of the leaderboard each: task -> method with its settings, and what is searched."""
    asked = request.methods or suite.methods
    tables = [{"name": m} if isinstance(m, str) else dict(m) for m in asked]
    for table in tables:
        if not isinstance(table.get("name"), str):
            raise UsageError(f"a method table needs a name: {table}")
    names = [Path(t["name"]).stem if method.is_path(t["name"]) else t["name"] for t in tables]
    wanted: dict[str, dict[str, Any]] = {}
    for key, value in request.settings.items():
        owner, _, name = key.partition(".")
        if owner != "protocol":
            if owner not in names:
                hint = f"{owner} is not among the methods of this run." if owner else ""
                raise unknown("name in --set", owner or key, ["protocol", *names], hint)
            wanted.setdefault(owner, {})[name] = value
    chosen: dict[str, list[presets.Preset]] = {}
    of_protocol = [preset for preset in rules_of.presets if preset.split(".")[0] in names]
    for preset in map(presets.load, request.presets or of_protocol):
        if preset.method not in names:
            raise UsageError(
                f"preset {preset.name} is for {preset.method}, which is not among the methods of "
                f"this run: --methods {','.join([*names, preset.method])}"
            )
        chosen.setdefault(preset.method, []).append(preset)
    rows: list[dict[str, Choice]] = []
    for table, name in zip(tables, names, strict=True):
        reference = table.pop("name")
        cls = method.load(reference)
        given = {
            key: settings.parse(cls, name, key, value) if isinstance(value, str) else value
            for key, value in wanted.get(name, {}).items()
        }
        explicit = {**table, **given}  # wins over a preset
        if name in chosen:
            for preset in chosen[name]:
                rows.append(_preset_row(request, reference, preset, explicit, suite, tasks))
        else:
            choice = _choice(request, reference, explicit)
            rows.append(dict.fromkeys((t.name for t in tasks), choice))
    firsts = [next(iter(row.values()))[0] for row in rows]
    for i, spec in enumerate(firsts):
        for other in firsts[:i]:
            if other.label == spec.label and other.reference == spec.reference:
                raise UsageError(f"method {spec.label} is given twice.")
            if other.label == spec.label:
                raise UsageError(
                    f"{other.reference} and {spec.reference} would both be called {spec.label} on "
                    "the leaderboard; rename the file."
                )
    return rows


def _choice(request: Request, reference: str, values: Mapping[str, Any]) -> Choice:
    """A method with settings that were chosen; the others are searched, where that is asked for."""
    spec = method.specify(reference, dict(values))
    if request.search is None:
        return spec, None
    return spec, search.declare(
        request.search, request.sampler, spec.reference, spec.name, set(values)
    )


def _preset_row(
    request: Request,
    reference: str,
    preset: presets.Preset,
    explicit: Mapping[str, Any],
    suite: Suite,
    tasks: Sequence[Task],
) -> dict[str, Choice]:
    """Task -> method with the preset's settings; `explicit` ones win and are told in the label."""
    told = f"({', '.join(f'{key}={value}' for key, value in explicit.items())})" if explicit else ""
    note = {"name": preset.name, "chosen": preset.chosen, "source": preset.source}
    row = {}
    names = [task.name for task in tasks]
    for name, values in zip(names, preset.of(suite.name, names), strict=True):
        try:
            spec, searched = _choice(request, reference, {**values, **explicit})
        except UsageError as error:
            raise UsageError(f"preset {preset.name}, task {name}: {error}") from None
        row[name] = replace(spec, label=f"{preset.row}{told}", preset=note), searched
    return row


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
