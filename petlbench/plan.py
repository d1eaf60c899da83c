"""What a command asks for: a request, expanded into run specs, and what is done of them."""

from __future__ import annotations

import functools
import os
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench import method, protocol, settings, weights
from petlbench.errors import UsageError, unknown
from petlbench.spec import RunSpec
from petlbench.store import Record, Store
from petlbench.task import Suite, Task, load_suite

if TYPE_CHECKING:
    from petlbench.backbone import Shape

DEVICES = ("auto", "cpu", "cuda", "mps")
KEEP = ("all", "predictions", "none")


@dataclass(frozen=True)
class Request:
    """The arguments of `petlbench run` and `plan`; None stands for the suite's own choice.

    `methods` are names, files or entry points, or tables such as {"name": "convpass",
    "scale": 0.1}; `settings` maps "method.field" or "protocol.field" to a value (text is parsed).
    """

    suite: str = "mini"
    methods: Sequence[str | Mapping[str, Any]] | None = None
    tasks: Sequence[str] | None = None
    backbone: str | None = None
    checkpoint: str | None = None
    data_root: str | None = None
    protocol: str | None = None
    seeds: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    results: str | None = None
    device: str = "auto"
    jobs: int | None = None
    threads: int | None = None
    keep: str = "all"

    def __post_init__(self) -> None:
        for name, allowed in (("device", DEVICES), ("keep", KEEP)):
            if getattr(self, name) not in allowed:
                raise UsageError(
                    f"{name} = {getattr(self, name)!r}: choose one of {', '.join(allowed)}."
                )
        for name, kinds in (("methods", (str, Mapping)), ("tasks", str)):
            values = getattr(self, name)
            if isinstance(values, str):  # methods="lora" means what it seems to
                object.__setattr__(self, name, values := (values,))
            for value in values or ():
                if not isinstance(value, kinds):
                    raise UsageError(f"{name}: {value!r} is not a name.")
        for name in ("seeds", "jobs", "threads"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name} = {value!r} must be a whole number of at least 1.")
        object.__setattr__(self, "settings", _flat(self.settings))
        if self.methods is not None and not self.methods:
            raise UsageError("no methods given: --methods convpass,lora")

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
    done: list[Record]
    sizes: dict[str, tuple[int, int]]  # task -> training and test images
    notes: list[str]

    def workers(self) -> tuple[int, int]:
        """(worker processes, threads each). By default one worker per GPU; on a CPU as many as
        there are cores and memory for, at most 4: small models do not fill several cores.
        The same for a resumed sweep as for a fresh one, since threads decide the last bits."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None
        cores = cores or os.cpu_count() or 1
        jobs = self.request.jobs
        if jobs is None:
            if self.device == "cpu":
                jobs = min(4, cores, _fit_in_memory(self.specs[0]))
            else:
                import torch

                jobs = torch.cuda.device_count() if self.device == "cuda" else 1
            jobs = max(1, min(jobs, len(self.specs)))
        return jobs, self.request.threads or max(1, cores // jobs)

    def wall_seconds(self) -> tuple[float, str]:
        """Estimated time of what is to do, and what the estimate rests on."""
        if not self.todo:
            return 0.0, ""
        if not self.done:
            return _guess(self), "a short speed test of this machine (rough)"
        cost: dict[str, list[float]] = {}
        for record in self.done:
            seconds = record["train_seconds"] + record["test_seconds"]
            cost.setdefault(record["spec"]["method"]["label"], []).append(seconds)
        everything = [seconds for costs in cost.values() for seconds in costs]
        total = 0.0
        for spec in self.todo:
            known = cost.get(spec.method.label, everything)
            total += sum(known) / len(known)
        return total / self.workers()[0], f"{len(self.done)} recorded runs"


def request_from_file(path: Path, changes: Mapping[str, Any]) -> Request:
    """A request from a TOML file; `changes` (the command line) win over it."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read plan file {path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"plan file {path} is not valid TOML: {error}") from error
    known = {f.name: f.type for f in fields(Request)}
    for key, value in values.items():
        if key not in known:
            raise unknown(f"key in plan file {path}", key, known)
        kinds = _KINDS.get(key, str)
        if not isinstance(value, kinds) or isinstance(value, bool):
            wanted = {list: "an array", dict: "a table", int: "a whole number"}.get(kinds, "text")
            raise UsageError(f"plan file {path}: {key} = {value!r} must be {wanted}.")
    merged = _flat(values.get("settings", {})) | changes.get("settings", {})
    return Request(**{**values, **changes, "settings": merged})


def _flat(given: Mapping[str, Any]) -> dict[str, Any]:
    """{"protocol": {"epochs": 3}} and {"protocol.epochs": 3} alike as the latter."""
    flat: dict[str, Any] = {}
    for key, value in given.items():
        inner = value if isinstance(value, Mapping) else {None: value}
        flat |= {key if name is None else f"{key}.{name}": one for name, one in inner.items()}
    return flat


_KINDS: dict[str, type] = {
    "methods": list,
    "tasks": list,
    "settings": dict,
    "seeds": int,
    "jobs": int,
    "threads": int,
}


def make(request: Request) -> Plan:
    """Expand and validate everything before anything runs."""
    suite = load_suite(request.suite)
    tasks = suite.select(list(request.tasks) if request.tasks is not None else None)
    methods = _methods(request.methods or suite.methods, request.settings)
    device = _device(request.device)
    rules_of = protocol.load(request.protocol or suite.protocol)
    rules_of = protocol.override(rules_of, _protocol_settings(request))
    data_root = request.data_root or os.environ.get("PETLBENCH_DATA")
    root = Path(data_root).expanduser() if data_root else None
    members, sizes = _members(suite, tasks, rules_of.rules(), root)
    backbone = weights.specify(request.backbone or suite.backbone, request.checkpoint)
    rules = _resolve(rules_of, backbone.name, device)
    # a checkpoint or an image size that does not fit: now, not in every run
    on_disk = backbone if backbone.path else replace(backbone, checkpoint=weights.RANDOM)
    weights.build(on_disk, rules["image_size"])
    specs = [
        RunSpec(
            suite=suite.name,
            task=task.name,
            group=task.group,
            classes=task.classes,
            seed=seed,
            method=spec,
            backbone=backbone,
            protocol=rules_of.name,
            rules=rules,
            members=members[task.name],
        )
        for seed in range(request.seeds or rules_of.seeds)
        for task in tasks
        for spec in methods
    ]
    store = Store(request.folder)
    done = {spec.key: store.read(spec.key) for spec in specs}
    todo = [spec for spec in specs if done[spec.key] is None]
    return Plan(
        request=request,
        specs=specs,
        todo=todo,
        failed=sum((store.failed / f"{spec.key}.json").exists() for spec in todo),
        store=store,
        device=device,
        data_root=str(root.resolve()) if root else None,
        notes=_subsets(tasks, sizes, rules),
        done=[record for record in done.values() if record],
        sizes=sizes,
    )


def _methods(
    asked: Sequence[str | Mapping[str, Any]], given_settings: Mapping[str, Any]
) -> list[method.MethodSpec]:
    tables = [{"name": m} if isinstance(m, str) else dict(m) for m in asked]
    for table in tables:
        if not isinstance(table.get("name"), str):
            raise UsageError(f"a method table needs a name: {table}")
    names = [Path(t["name"]).stem if method.is_path(t["name"]) else t["name"] for t in tables]
    wanted: dict[str, dict[str, Any]] = {}
    for key, value in given_settings.items():
        owner, _, name = key.partition(".")
        if owner != "protocol":
            if owner not in names:
                hint = f"{owner} is not among the methods of this run." if owner else ""
                raise unknown("name in --set", owner or key, ["protocol", *names], hint)
            wanted.setdefault(owner, {})[name] = value
    specs = []
    for table, name in zip(tables, names, strict=True):
        reference = table.pop("name")
        cls = method.load(reference)
        given = {
            key: settings.parse(cls, name, key, value) if isinstance(value, str) else value
            for key, value in wanted.get(name, {}).items()
        }
        specs.append(method.specify(reference, {**table, **given}))
    for i, spec in enumerate(specs):
        for other in specs[:i]:
            if other.label == spec.label and other.reference == spec.reference:
                raise UsageError(f"method {spec.label} is given twice.")
            if other.label == spec.label:
                raise UsageError(
                    f"{other.reference} and {spec.reference} would both be called {spec.label} on "
                    "the leaderboard; rename the file."
                )
    return specs


def _protocol_settings(request: Request) -> dict[str, Any]:
    cls, values = protocol.Protocol, {}
    for key, value in request.settings.items():
        owner, _, name = key.partition(".")
        if owner == "protocol":
            text = isinstance(value, str)
            values[name] = settings.parse(cls, "protocol", name, value) if text else value
    return values


def _device(name: str) -> str:
    import torch

    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":  # mps only when asked for: its kernels round differently
        return "cuda" if present["cuda"] else "cpu"
    if not present.get(name, True):
        raise UsageError(f"--device {name}: PyTorch finds no such device here; use cpu or auto.")
    return name


def _resolve(chosen: protocol.Protocol, backbone: str, device: str) -> dict[str, Any]:
    """The protocol's fields with "auto" and "checkpoint" replaced by what they mean here."""
    rules = chosen.rules()
    rules["mean"], rules["std"] = map(
        list, weights.normalisation(rules.pop("normalisation"), backbone)
    )
    if rules["precision"] == "auto":
        rules["precision"] = "bf16" if _multiplies_bf16(device) else "fp32"
    return rules


def _multiplies_bf16(device: str) -> bool:
    """Whether bf16 matrix products are native, and so faster than fp32 (AVX512-BF16 is not)."""
    import torch

    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return device == "cpu" and bool(amx())


def _members(
    suite: Suite, tasks: Sequence[Task], rules: Mapping[str, Any], root: Path | None
) -> tuple[dict[str, dict[str, str]], dict[str, tuple[int, int]]]:
    """Task -> split -> SHA-256 of its members, and task -> sizes of training and test split.

    Reports every task that cannot be read at once.
    """
    if suite.needs_data_root and root is None:
        raise UsageError(
            f"suite {suite.name} reads images from disk: give --data-root DIR or set "
            "PETLBENCH_DATA."
        )
    found, sizes, problems = {}, {}, []
    for task in tasks:
        try:
            names = (rules["train_split"], rules["test_split"])
            training, test = (suite.open_split(task, name, root) for name in names)
            found[task.name] = {split.name: split.members for split in (training, test)}
            sizes[task.name] = (len(training), len(test))
        except UsageError as error:
            problems.append(f"  {task.name}: {error}")
    if problems:
        hint = f"\nRun what is there: --tasks {','.join(found)}" if found else ""
        raise UsageError(
            f"{len(problems)} of {len(tasks)} tasks of {suite.name} cannot be read:\n"
            + "\n".join(problems)
            + hint
        )
    return found, sizes


def _subsets(
    tasks: Sequence[Task], sizes: Mapping[str, tuple[int, int]], rules: Mapping[str, Any]
) -> list[str]:
    """A sentence for each task whose test split is not the published one."""
    return [
        f"{task.name}: {sizes[task.name][1]:,} of {task.sizes[rules['test_split']]:,} published "
        "test images are there; the numbers are for this subset."
        for task in tasks
        if task.sizes.get(rules["test_split"], 0) not in (0, sizes[task.name][1])
    ]


def _fit_in_memory(spec: RunSpec) -> int:
    """How many runs fit side by side: weights, optimiser and activations of full fine-tuning."""
    try:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        memory = 8 * 2**30  # not told on Windows
    shape = _shape(spec)
    tokens = shape.grid[0] * shape.grid[1] + shape.num_prefix_tokens
    per_token = shape.depth * (16 * shape.dim + 4 * shape.num_heads * tokens)  # kept for backward
    activations = 4 * spec.rules["batch_size"] * tokens * per_token
    return int(0.6 * memory / (5e8 + 16 * shape.num_parameters + activations))


def _guess(plan: Plan) -> float:
    """Seconds from first principles: 2 FLOPs per weight and token forward, two to three times
    that in training, at 60% of the speed of a large matrix product measured here and now."""
    import torch

    shape = _shape(plan.todo[0])
    forward = 2 * shape.num_parameters * (shape.grid[0] * shape.grid[1] + shape.num_prefix_tokens)
    epochs = plan.todo[0].rules["epochs"]
    counts = [plan.sizes[spec.task] for spec in plan.todo]
    flops = sum(forward * (2.5 * epochs * train + test) for train, test in counts)
    kind = torch.bfloat16 if plan.todo[0].rules["precision"] == "bf16" else torch.float32
    a = torch.ones(2048, 2048, dtype=kind, device=plan.device)
    (a @ a).sum().item()
    begin = time.perf_counter()
    for _ in range(4):
        (a @ a)[0, 0].item()
    speed = 4 * 2 * 2048**3 / (time.perf_counter() - begin)
    return float(flops / (0.6 * speed))


def _shape(spec: RunSpec) -> Shape:
    return _shape_of(spec.backbone.name, spec.rules["image_size"])


@functools.cache
def _shape_of(backbone: str, image_size: int) -> Shape:
    shape: Shape = weights.build(weights.BackboneSpec(backbone, weights.RANDOM), image_size).shape
    return shape
