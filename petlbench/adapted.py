"""A finished run as a model again: predict with it, merge it, give it away."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from petlbench import experiment, protocol, weights
from petlbench.backbone import Backbone, load_stored, stored_tensors
from petlbench.data import cache, lists
from petlbench.data.class_folders import IMAGES
from petlbench.data.normalise import Normalise
from petlbench.errors import UsageError, unknown
from petlbench.evaluate import logits
from petlbench.experiment import Machine
from petlbench.method import MethodSpec, installed, is_path
from petlbench.record import problem_of_spec
from petlbench.results import folders
from petlbench.spec import RunSpec
from petlbench.store import Record, Store, write_bytes

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Adapted:
    """A backbone adapted to a task, as its run left it, in evaluation mode."""

    spec: RunSpec
    model: Backbone
    class_names: tuple[str, ...] = ()  # in the order of the labels, where they are known

    def logits(self, pixels: Tensor) -> Tensor:
        """Images (N, 3, S, S) uint8 RGB, of the protocol's image size -> (N, classes)."""
        rules = self.spec.rules
        device = next(self.model.parameters()).device
        normalise = Normalise(rules["mean"], rules["std"], device)
        return logits(self.model, pixels, normalise, rules["precision"] == "bf16")

    def predict(self, images: Sequence[Path | str]) -> pd.DataFrame:
        """Files and folders of images -> one row each: file, class (from 0), probability, and the
        name of the class where the task had names.

        Folders are searched for images, also below. Decoded and resized as the task's were.
        Raises UsageError if there is no image, RunError naming the file that cannot be decoded.
        """
        import pandas as pd

        if not self.spec.classes:
            raise UsageError(
                f"{self.spec.task} retrieves captions: there are no classes to predict."
            )
        files = image_files(images)
        split = lists.of_files("given", files, [0] * len(files), members="")
        rules = self.spec.rules
        pixels = cache.decode(split, cache.Geometry.of(rules))
        probability, index = self.logits(torch.from_numpy(pixels)).softmax(1).max(1)
        found = pd.DataFrame(
            {"file": [str(f) for f in files], "class": index, "probability": probability}
        )
        if self.class_names:
            found["name"] = [self.class_names[number] for number in index.tolist()]
        return found

    def merge(self) -> Adapted:
        """The same function as a plain backbone and head, in place: nothing is left attached.

        Raises UsageError where the method does not merge, or not into this backbone.
        """
        with torch.no_grad():
            try:
                self.spec.method.build().merge(self.model)
            except UsageError as error:
                raise UsageError(f"{self.spec.method.label} does not merge: {error}") from None
        return self


def load_adapted(
    run: Record | str | Path,
    results: Path | str = "results",
    checkpoint: Path | str | None = None,
    method: Path | str | None = None,
    device: str = "cpu",
) -> Adapted:
    """The model of a finished run.

    `run`: a record, its key (or the key's first digits) in the results folder, or a stored
    `.safetensors`. `checkpoint`: the backbone's file, where the run was given one; it must be the
    same file (SHA-256). `method`: the method's file, where it is not a built-in one.

    On the CPU, with the record's own settings, its predictions are those of the run, bit for bit.
    Raises UsageError where something that is needed is missing or another one.
    """
    values, file, environment = _locate(run, Path(results))
    backbone = weights.find(
        values["backbone"]["name"], values["backbone"]["checkpoint"], checkpoint
    )
    spec = _spec(values, backbone, method)
    machine = Machine(
        device,
        threads=environment.get("threads", torch.get_num_threads()),
        attention=environment.get("attention", "explicit"),
    )
    torch.set_num_threads(machine.threads)
    model = experiment.prepare(spec, machine)
    with _opened(file) as (stored, _, names):
        load_stored(model, {name: stored.get_tensor(name) for name in stored.keys()})  # noqa: SIM118
    return Adapted(spec, model.eval(), tuple(names))


def export(adapted: Adapted, file: Path, merge: bool) -> None:
    """Write `.safetensors`: a plain timm checkpoint if merged, else what was trained and its spec.

    The plain checkpoint has timm's names, `head` included:
    `timm.create_model(name, checkpoint_path=file, num_classes=classes, img_size=size)`. Of a
    `clip:` backbone it is open_clip's state dict, and `head.*`.
    """
    if file.suffix != ".safetensors":
        raise UsageError(f"{file}: an export ends in .safetensors.")
    model = adapted.merge().model if merge else adapted.model
    tensors = model.export() if merge else stored_tensors(model)
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    told = adapted.spec.as_dict() | {"class_names": adapted.class_names}
    try:
        write_bytes(file, save(content, {"spec": json.dumps(told)}))
    except OSError as error:
        raise UsageError(f"cannot write {file}: {error.strerror or error}.") from error


def image_files(given: Sequence[Path | str]) -> list[Path]:
    """The images among files and below folders, in the order of their names."""
    found: list[Path] = []
    for path in map(Path, given):
        if path.is_dir():
            inside = [f for f in sorted(path.rglob("*")) if f.suffix.lower() in IMAGES]
            if not inside:
                raise UsageError(f"no images in {path} ({', '.join(IMAGES)}).")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"no file or folder {path}.")
    if not found:
        raise UsageError("no images given.")
    return found


def _locate(run: Record | str | Path, results: Path) -> tuple[dict[str, Any], Path, dict[str, Any]]:
    """(spec, stored weights, environment) of a run."""
    if isinstance(run, dict):
        run = str(run.get("key"))
    if str(run).endswith(".safetensors"):
        file = Path(run).expanduser()
        if not file.is_file():
            raise UsageError(f"no file {file}.")
        with _opened(file) as (_, told, _):
            return told, file, {}
    everything = [
        (folder, record)
        for folder in folders(results)
        for record in Store(folder).load()[0]
        if record["status"] == "done"
    ]
    found = [each for each in everything if each[1]["key"].startswith(str(run))]
    if not found:
        hint = f"See: petlbench list runs --results {results}"
        raise unknown("run", str(run), [record["key"] for _, record in everything], hint)
    if len({record["key"] for _, record in found}) > 1:
        keys = sorted({record["key"] for _, record in found})
        raise UsageError(f"run {run!r} is short for {', '.join(keys[:4])}: give more digits.")
    folder, record = found[0]
    try:
        file = Store(folder).artifact(record, ".safetensors")
    except OSError as error:
        raise UsageError(
            f"the weights of run {record['key']} were not kept ({error}): run it with --keep all."
        ) from error
    values = record["tuned"] if "tuned" in record else record["spec"]  # what a search found
    return values, file, record["environment"]


@contextmanager
def _opened(file: Path) -> Iterator[tuple[Any, dict[str, Any], Sequence[str]]]:
    """Stored weights, and the spec and names of classes that lie with them."""
    try:
        with safe_open(file, framework="pt", device="cpu") as stored:
            spec = json.loads((stored.metadata() or {}).get("spec", "null"))
            if spec is None:
                raise UsageError(f"{file} was not written by petlbench: it holds no spec.")
            if why := problem_of_spec(spec):
                raise UsageError(f"{file} cannot be read: it {why}.")
            names = spec.pop("class_names", ())
            yield stored, spec, names
    except (OSError, RecursionError, SafetensorError, ValueError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def untrained(record: Mapping[str, Any]) -> RunSpec:
    """The spec of a run on random weights: for costs, which do not depend on them."""
    values = record.get("tuned", record["spec"])
    return _spec(values, weights.BackboneSpec(values["backbone"]["name"], weights.RANDOM), None)


def _spec(
    values: Mapping[str, Any], backbone: weights.BackboneSpec, method: Path | str | None
) -> RunSpec:
    """A spec as stored in a record, with what this machine must supply found and verified."""
    values = dict(values)
    rules = protocol.neutral() | values.pop("protocol")
    stored = dict(values.pop("method"))
    reference = str(Path(method).expanduser().resolve()) if method else stored["name"]
    offered = ":" in reference or reference in installed()  # by a package, which has a source too
    own = is_path(reference) or (stored["source"] and not offered)
    if own and not method:  # what a record calls its method is no file that may be run
        raise UsageError(
            f"{reference} is a method of your own: say where its file is (--method FILE.py)."
        )
    try:
        return RunSpec(
            **values | {"backbone": backbone},
            method=MethodSpec(reference=reference, **stored),
            protocol=rules.pop("name"),
            rules=rules,
        )
    except TypeError as error:  # a field is missing, or more than there are
        raise UsageError(f"the run was stored by another version of petlbench: {error}") from error
