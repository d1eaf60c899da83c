"""What a method is, and how methods are found.

A method is one file with one frozen dataclass: its fields are its hyperparameters, `attach`
adapts a frozen backbone, `num_trainable` states in closed form how many parameters that costs.
The file's name is the method's name; there is no list to edit. A file `_family.py` makes several,
called family:name.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import inspect
import sys
from dataclasses import asdict, dataclass, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, cast

from petlbench import settings
from petlbench.errors import RunError, UsageError, unknown
from petlbench.settings import setting as setting  # re-exported for method authors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from petlbench.backbone import Backbone, Shape

# Normalised training images (B, 3, H, W) and their labels (B,), in batches of that size.
Batches: TypeAlias = "Callable[[int], Iterator[tuple[Tensor, Tensor]]]"

ENTRY_POINTS = "petlbench.methods"


@dataclass(frozen=True)
class Method:
    """How a frozen backbone is adapted to a task. Subclass as a frozen dataclass.

    Before `attach` is called every parameter of the backbone is frozen and a fresh linear head
    is trainable. What `attach` creates trains by birth; what it wants to train of the backbone
    it unfreezes by attribute (`module.bias.requires_grad_(True)`), never by matching names.
    """

    search: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """The values an equal-budget search may draw from, per hyperparameter."""

    merges: ClassVar[bool] = False
    """Whether `merge` leaves exactly the backbone's parameters, and the same function."""

    trains_head: ClassVar[bool] = True
    """Whether what a task puts behind the backbone trains too."""

    distribution: ClassVar[str | None] = None
    """The installed package that computes it, if not petlbench; another version, another method."""

    def __post_init__(self) -> None:
        settings.check(self, type(self).__module__.rsplit(".", 1)[-1])

    def require(self, shape: Shape) -> None:
        """Raise UsageError, with the reason, where the method makes no sense. Asked before a run.

        By default a method needs transformer blocks.
        """
        if not shape.blocks:
            raise UsageError(
                f"it attaches to blocks, and petlbench knows those of plain vision transformers "
                f"(pre-norm, joint qkv projection) and of Swin, not those of {shape.family}; full, "
                "linear, bitfit and layernorm need none."
            )

    def attach(self, backbone: Backbone) -> None:
        """Add modules to the sites of `backbone`, in place."""
        raise NotImplementedError(f"{type(self).__name__} does not say how it attaches")

    def calibrate(self, backbone: Backbone, batches: Batches) -> None:
        """Look at training images, after `attach` and before training; by default does nothing.

        What it finds goes into buffers of the attached modules, which are stored with the
        trained weights. It must leave every parameter of the backbone as it was.
        """

    def num_trainable(self, shape: Shape) -> int:
        """Trainable parameters without the head, in closed form."""
        raise NotImplementedError(f"{type(self).__name__} does not declare its parameter count")

    def identity_at_init(self) -> bool:
        """Whether the adapted backbone, before training, computes what it did frozen.

        Up to rounding: to 1e-5 on logits of order one.
        """
        return True

    def merge(self, backbone: Backbone) -> None:
        """Fold what is attached into the backbone's own weights, in place.

        Raises UsageError where the backbone has no parameter that could take it up.
        """
        backbone.merge()

    def stored_bytes(self, trained: dict[str, Tensor]) -> int:
        """Bytes that one task needs beside the backbone, given what is stored (head included)."""
        return sum(tensor.numel() * tensor.element_size() for tensor in trained.values())


@dataclass(frozen=True)
class MethodSpec:
    """A method and its settings, as stored in a record.

    `reference` is what finds it again (a name or an absolute path); `source` is the SHA-256 of
    the code when it is not petlbench's own, so that an edited method is a new method.
    """

    name: str
    reference: str
    source: str | None
    config: dict[str, Any]
    label: str
    preset: dict[str, str] | None = None  # name, chosen, source; see presets.py

    def build(self) -> Method:
        cls = load(self.reference)
        if self.source and _code_hash(cls) != self.source:
            raise RunError(
                f"{self.reference} was edited since the run was planned, or is another file than "
                "the run's; plan and run it again."
            )
        return cls(**self.config)


def folder() -> Path:
    """The folder of the built-in methods."""
    spec = importlib.util.find_spec("petlbench.methods")
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parent


def builtin() -> dict[str, Path]:
    """Built-in method name -> file."""
    return {p.stem: p for p in sorted(folder().glob("*.py")) if not p.stem.startswith("_")}


def installed() -> dict[str, metadata.EntryPoint]:
    """Methods that installed packages offer through the entry point group `petlbench.methods`."""
    return {point.name: point for point in metadata.entry_points(group=ENTRY_POINTS)}


def families() -> dict[str, Path]:
    """Family -> file: `_peft.py` makes peft:lora, peft:oft, ...

    Such a file has a literal METHODS = {name: summary} and a function make(name) -> method class.
    """
    files = {p.stem[1:]: p for p in sorted(folder().glob("_[a-z]*.py"))}
    return {family: file for family, file in files.items() if members(file)}


def members(file: Path) -> dict[str, str]:
    """Name -> summary of the methods that a family's `file` makes, read without running it."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "METHODS":
            return cast("dict[str, str]", ast.literal_eval(node.value))
    return {}


def docstring(file: Path) -> str:
    """Of the method in `file`, read without running it (no torch import)."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    decorated = [node for node in classes if node.decorator_list and ast.get_docstring(node)]
    return (ast.get_docstring(decorated[-1]) if decorated else ast.get_docstring(tree)) or ""


def summary(file: Path) -> str:
    """The docstring's first line."""
    return docstring(file).split("\n", 1)[0]


def settings_text(file: Path) -> list[str]:
    """The hyperparameters and defaults written in `file`, as "rank=8, alpha=8.0"; not run."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    fields = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and node.decorator_list:
            for line in node.body:
                if isinstance(line, ast.AnnAssign) and line.value is not None:
                    value = line.value.args[0] if isinstance(line.value, ast.Call) else line.value
                    fields.append(f"{ast.unparse(line.target)}={ast.unparse(value)}")
    return [", ".join(fields)] if fields else []


def is_path(reference: str) -> bool:
    return reference.endswith(".py") or "/" in reference or "\\" in reference


def load(reference: str) -> type[Method]:
    """The method class behind a built-in name, family:name, an entry point's name or a file."""
    if is_path(reference):
        return _from_file(Path(reference))
    family, colon, member = reference.partition(":")
    if colon and family in families():
        module = importlib.import_module(f"petlbench.methods._{family}")
        return cast("type[Method]", module.make(member))
    if reference in builtin():
        return _only_method(importlib.import_module(f"petlbench.methods.{reference}"), reference)
    points = installed()
    if reference not in points:
        there = f"./{reference}.py" if Path(f"{reference}.py").is_file() else "./mine.py"
        hint = f"Your own method: give its file, {there}."
        whole = (f"{name}:{m}" for name, file in families().items() for m in members(file))
        raise unknown("method", reference, [*builtin(), *points, *(whole if colon else ())], hint)
    try:
        found = points[reference].load()
    except Exception as error:
        raise UsageError(
            f"method {reference} ({points[reference].value}) cannot be imported from its package: "
            f"{type(error).__name__}: {error}"
        ) from error
    if inspect.isclass(found) and issubclass(found, Method):
        return found
    return _only_method(found, reference)


def _from_file(path: Path) -> type[Method]:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"no method file at {path}.")
    if path.suffix != ".py":
        raise UsageError(f"a method file ends in .py; {path} does not.")
    if _is_builtin_file(path):
        return load(path.stem)
    # A name of its own: a user's `lora.py` must not shadow the built-in one in sys.modules.
    name = f"petlbench_user_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}.{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise UsageError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return _only_method(module, str(path))


def _only_method(module: Any, reference: str) -> type[Method]:
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Method)
        and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(cls.__name__ for cls in found) or "none"
        raise UsageError(f"{reference} must define exactly one Method subclass; found: {names}.")
    if not is_dataclass(found[0]) or "__dataclass_params__" not in vars(found[0]):
        raise UsageError(f"{reference}: put @dataclass(frozen=True) above {found[0].__name__}.")
    return found[0]


def specify(reference: str, config: dict[str, Any] | None = None) -> MethodSpec:
    """Validate `config` and describe the method completely: defaults are written out."""
    if is_path(reference) and _is_builtin_file(Path(reference)):
        reference = Path(reference).stem
    cls = load(reference)
    name = Path(reference).stem if is_path(reference) else reference
    for key in config or {}:
        settings.known(cls, name, key)
    full = asdict(create(cls, reference, config or {}))
    defaults = asdict(create(cls, reference, {}))
    changed = [f"{key}={value}" for key, value in full.items() if value != defaults[key]]
    is_builtin = not is_path(reference) and reference in builtin()
    if is_path(reference):
        reference = str(Path(reference).expanduser().resolve())
    return MethodSpec(
        name=name,
        reference=reference,
        source=None if is_builtin else _code_hash(cls),
        config=full,
        label=f"{name}({', '.join(changed)})" if changed else name,
    )


def create(cls: type[Method], reference: str, config: dict[str, Any]) -> Method:
    """An instance; whatever the class itself raises is told as the method's own error."""
    try:
        return cls(**config)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{reference}: {cls.__name__} cannot be made: {type(error).__name__}: {error}. "
            "Every setting needs a default that is allowed."
        ) from error


def _is_builtin_file(path: Path) -> bool:
    path = path.expanduser().resolve()
    return path.parent == folder().resolve() and path.stem in builtin()


def _code_hash(cls: type[Method]) -> str:
    if cls.distribution:
        version = f"{cls.distribution} {metadata.version(cls.distribution)}"
        return hashlib.sha256(version.encode()).hexdigest()
    return hashlib.sha256(Path(inspect.getfile(cls)).read_bytes()).hexdigest()
