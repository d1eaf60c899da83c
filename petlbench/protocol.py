"""A protocol: everything that must be equal for two numbers to be comparable.

One strict TOML file per protocol in `protocols/`; the file's name is the protocol's name. Fields
that depend on the machine or the checkpoint ("auto", "checkpoint") are resolved to values before
a run is specified, and the resolved values are what is hashed into the fingerprint.
"""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from petlbench import settings, toml
from petlbench.errors import UsageError, unknown
from petlbench.settings import setting

# Rules without a meaning for a backbone that reads no text; such runs do not have them.
TEXT = ("towers", "head", "prompt")
# Rules that only a search reads; other runs do not have them.
SEARCH = (
    *("search_train_split", "search_val_split"),
    *("search_learning_rate", "search_weight_decay"),
)
# Rules whose default changes nothing: then they are no part of a fingerprint, so that a new one
# leaves the fingerprints of what was run before it as they were.
NEUTRAL = (
    *("resize_to", "keep_aspect", "momentum", "beta2", "learning_rate_batch"),
    *("head_learning_rate", "schedule", "mixup", "cutmix", "label_smoothing", "temperature"),
)


@dataclass(frozen=True)
class Protocol:
    """The rules of a comparison. Sizes in pixels, durations in epochs.

    The learning rate rises linearly from `warmup_learning_rate` over the warm-up epochs and then
    follows a cosine to `min_learning_rate`, step by step (formula: `train.learning_rate`).
    Weight decay applies to every trainable parameter, as in the released PETL code.
    """

    name: str
    description: str = ""
    # images
    image_size: int = setting(224, at_least=1)
    # to image_size x image_size, no crop; Pillow's resampling, or torch's vectorised one
    resize: Literal["bicubic", "bilinear", "bicubic-torch", "bilinear-torch"] = "bicubic"
    resize_to: int = setting(0, at_least=0)  # before a centre crop to image_size; 0: no crop
    keep_aspect: bool = False  # the shorter side to resize_to, instead of both
    normalisation: Literal["checkpoint", "imagenet", "half", "clip", "none"] = "checkpoint"
    # recipe
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = setting(0.0, at_least=0, below=1)  # of sgd
    beta2: float = setting(0.999, above=0, below=1)  # of adamw
    learning_rate: float = setting(1e-3, above=0)
    learning_rate_batch: int = setting(0, at_least=0)  # rates are for this batch size; 0: for any
    head_learning_rate: float = setting(0.0, at_least=0)  # of the head; 0: the same
    weight_decay: float = setting(1e-4, at_least=0)
    schedule: Literal["cosine", "linear"] = "cosine"
    warmup_learning_rate: float = setting(1e-6, at_least=0)
    min_learning_rate: float = setting(1e-5, at_least=0)
    epochs: int = setting(100, at_least=1)
    warmup_epochs: int = setting(10, at_least=0)
    batch_size: int = setting(64, at_least=1)
    drop_last: bool = True
    drop_path: float = setting(0.1, at_least=0, below=1)
    augmentation: Literal["none", "noah", "crop-flip", "resized-crop-flip", "harma"] = "none"
    mixup: float = setting(0.0, at_least=0)
    cutmix: float = setting(0.0, at_least=0)
    label_smoothing: float = setting(0.0, at_least=0, below=1)
    temperature: float = setting(0.0, at_least=0)  # of retrieval; 0: the checkpoint's own
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    # of backbones with a text tower, for which backbones/clip.py says what they mean
    towers: Literal["image", "text", "both"] = "image"
    head: Literal["fresh", "text"] = "fresh"
    prompt: str = "A photo of {}."
    # evidence
    train_split: str = "train800val200"
    test_split: str = "test"
    selection: Literal["final-epoch"] = "final-epoch"  # nothing is chosen; test is read once
    # of a search: the splits that choose, and the values that a trial may draw
    search_train_split: str = "train800"
    search_val_split: str = "val200"
    search_learning_rate: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    search_weight_decay: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    seeds: int = setting(3, at_least=1)  # how many; not part of the fingerprint
    presets: tuple[str, ...] = ()  # used where their methods run; rows say so

    def __post_init__(self) -> None:
        settings.check(self, "protocol")
        if self.test_split in self.train_split:  # val200 is part of train800val200
            raise UsageError(
                f"protocol.test_split = {self.test_split!r} is part of the training split "
                f"{self.train_split!r}; choose disjoint ones."
            )
        if self.warmup_epochs >= self.epochs:
            raise UsageError(
                f"protocol.warmup_epochs = {self.warmup_epochs} must be smaller than "
                f"protocol.epochs = {self.epochs}; lower it too: --set protocol.warmup_epochs=0."
            )

        if self.prompt.count("{}") != 1:
            raise UsageError(
                f"protocol.prompt = {self.prompt!r} must have one {{}}, where the class name goes."
            )

    def rules(self) -> dict[str, Any]:
        """The fields that decide comparability, as plain values."""
        values = dataclasses.asdict(self)
        for name in ("name", "description", "seeds", "presets"):
            del values[name]
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values.items()}


@functools.cache
def neutral() -> dict[str, Any]:
    """Rules that change nothing, with the values that change nothing."""
    return {name: getattr(Protocol, name) for name in NEUTRAL}


def said(rules: dict[str, Any]) -> dict[str, Any]:
    """The rules without those that change nothing: what a fingerprint is made of."""
    silent = neutral()
    return {name: value for name, value in rules.items() if silent.get(name) != value}


def names() -> dict[str, str]:
    """Protocol name -> description."""
    files = resources.files("petlbench.protocols").iterdir()
    stems = sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))
    return {stem: load(stem).description for stem in stems}


def load(name: str) -> Protocol:
    """The protocol of that name or in that .toml file; unknown keys and types are refused."""
    own = Path(name) if name.endswith(".toml") else None
    file = own or resources.files("petlbench.protocols") / f"{name}.toml"
    if not file.is_file():
        if own:
            raise UsageError(f"no protocol file {name}.")
        raise unknown("protocol", name, names(), "Your own: --protocol ./mine.toml")
    values = toml.read(file, f"protocol {own or f'protocols/{name}.toml'}")
    return override(Protocol(name=own.stem if own else name), values)


def override(protocol: Protocol, values: dict[str, Any]) -> Protocol:
    """A copy with some fields changed; the name stays, the fingerprint tells."""
    for key in values:
        settings.known(Protocol, "protocol", key)
        if key == "name":
            raise UsageError("protocol.name is given by its file and cannot be set.")
    return dataclasses.replace(protocol, **values)
