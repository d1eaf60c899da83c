"""The arguments of a comparison, as words of the command line, of Python or of a file say them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from petlbench import backends, search, toml
from petlbench.errors import UsageError, unknown

DEVICES = ("auto", "cpu", "cuda", "mps")
KEEP = ("all", "predictions", "none")
ATTENTION = ("auto", "explicit", "fused")


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


def from_file(path: Path, changes: Mapping[str, Any]) -> Request:
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
