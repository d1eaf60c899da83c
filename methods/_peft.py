"""The tuners of Hugging Face PEFT as methods: peft:lora, peft:oft, peft:vera, ...

Mangrulkar et al., PEFT: state-of-the-art parameter-efficient fine-tuning methods, 2022
(github.com/huggingface/peft). What a tuner computes, its initialisation and its merging are that
package's. The settings of a method are the plain fields of its configuration class, with the same
names and, unless `TUNERS` says otherwise, the same defaults, but for one:

    target_modules    names of linear layers (qkv, proj, fc1, fc2), comma-separated, or all

Every layer of such a name is adapted, (..., in) -> (..., out). timm's qkv is one matrix: LoRA on
it is not LoRA on query and value at the same rank, which is the method `lora`.

Parameters are counted by letting the tuner adapt empty layers of the same shapes. Left out of the
configuration: what would train biases besides, what chooses another start than the tuner's own,
and what only language models or quantised weights have.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
import typing
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from petlbench import settings
from petlbench.backbone import Backbone, Shape, Site, adopt_layers
from petlbench.errors import UsageError, unknown
from petlbench.method import Method, setting

# Read without running this file, so that listing them needs neither PyTorch nor PEFT.
METHODS = {
    "beft": "BEFT: a vector added to q, k and v (in the paper to v) (arXiv:2509.15974)",
    "boft": "BOFT: times an orthogonal product of butterfly factors (arXiv:2311.06243)",
    "c3a": "C3A: plus a block-circular convolution (arXiv:2407.19342)",
    "deft": "DEFT: part of the weight projected away, and a low-rank part put there",
    "delora": "DeLoRA: LoRA with direction and strength apart (arXiv:2503.18225)",
    "dora": "DoRA: LoRA on the direction of each row, and its length (arXiv:2402.09353)",
    "fourierft": "FourierFT: plus a matrix of few Fourier coefficients (arXiv:2405.03003)",
    "glora": "GLoRA: weight and bias scaled and shifted, by factors of low rank (arXiv:2306.07967)",
    "gralora": "GraLoRA: LoRA in each block of the matrix",
    "hira": "HiRA: plus the weight times a low-rank matrix, element by element",
    "hra": "HRA: times Householder reflections (arXiv:2405.17484)",
    "ia3": "(IA)3: outputs of qkv and inputs of fc2 scaled (arXiv:2205.05638)",
    "lily": "Lily: LoRA whose factors are shared between layers (arXiv:2407.09946)",
    "ln_tuning": "LayerNorm tuning: weights and biases of the LayerNorms (arXiv:2312.11420)",
    "loha": "LoHa: plus an element-wise product of two low-rank matrices (arXiv:2108.06098)",
    "lokr": "LoKr: plus a Kronecker product (arXiv:2309.14859)",
    "lora": "LoRA: plus a low-rank matrix, one for q, k and v together (arXiv:2106.09685)",
    "miss": "MiSS: plus one small matrix, repeated (arXiv:2409.15371)",
    "oft": "OFT: times a block-diagonal orthogonal matrix (arXiv:2306.07280)",
    "olora": "OLoRA: LoRA that starts at the QR factors of the weight (arXiv:2406.01775)",
    "osf": "OSF: the small singular directions of the weight, the large ones frozen",
    "peanut": "PEANuT: plus what a small network makes of the weight (arXiv:2410.01870)",
    "pissa": "PiSSA: LoRA that starts at the principal components of the weight (arXiv:2404.02948)",
    "psoft": "PSOFT: orthogonal within the principal subspace of the weight",
    "pvera": "PVeRA: VeRA with a distribution in place of its vectors (arXiv:2512.07703)",
    "randlora": "RandLoRA: plus a sum of scaled random low-rank matrices (arXiv:2502.00987)",
    "road": "RoAd: pairs of outputs rotated and scaled (arXiv:2409.00119)",
    "rslora": "rsLoRA: LoRA scaled by one over the root of its rank (arXiv:2312.03732)",
    "shira": "SHiRA: a random sparse part of the weight",
    "supertuning": "Supertuning: the largest entries of the weight (arXiv:2607.09287)",
    "tinylora": "TinyLoRA: few numbers, spread at random over the weight's SVD (arXiv:2602.04118)",
    "unilora": "Uni-LoRA: all LoRA factors from one short vector (arXiv:2506.00799)",
    "vblora": "VB-LoRA: LoRA factors mixed from a bank of shared vectors (arXiv:2405.15179)",
    "vera": "VeRA: learned scales around random factors shared by all layers (arXiv:2310.11454)",
    "waveft": "WaveFT: plus a matrix of few wavelet coefficients",
}

_NEEDS = "it needs a language model from transformers"
REFUSED = {
    "adalora": "it must be told every training step, and adds a term of its own to the loss",
    "adamss": "how many parameters it trains depends on the weights, not on their shapes",
    "adaption_prompt": _NEEDS,
    "bone": "PEFT has replaced it by miss",
    "cartridge": _NEEDS,
    "cpt": _NEEDS,
    "frod": "it decomposes all weights jointly and cannot be counted without them",
    "multitask_prompt_tuning": _NEEDS,
    "p_tuning": _NEEDS,
    "poly": "it needs the number of a task with every batch",
    "prefix_tuning": _NEEDS,
    "prompt_tuning": _NEEDS,
    "shadow": _NEEDS,
    "trainable_tokens": "it trains rows of a token embedding; images have none",
    "xlora": "it mixes LoRAs that were trained before",
}

BIBTEX = """\
@misc{mangrulkar2022peft,
  title = {{PEFT}: State-of-the-art Parameter-Efficient Fine-Tuning methods},
  author = {Mangrulkar, Sourab and Gugger, Sylvain and Debut, Lysandre and Belkada, Younes and
            Paul, Sayak and Bossan, Benjamin},
  howpublished = {https://github.com/huggingface/peft},
  year = {2022}
}
"""

# PEFT's type of tuner, where it is called otherwise, and what differs from its defaults.
TUNERS: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 32},  # must divide the widths; 256 divides none of ViT-Ti and Swin
    "dora": {"peft_type": "lora", "use_dora": True},
    "ia3": {"target_modules": "qkv,fc2"},
    "ln_tuning": {"target_modules": "all"},
    "miss": {"r": 16},  # must not exceed a width
    "olora": {"peft_type": "lora", "init_lora_weights": "olora"},
    "pissa": {"peft_type": "lora", "init_lora_weights": "pissa"},
    "road": {"group_size": 16},  # the same function, and divides more widths
    "rslora": {"peft_type": "lora", "use_rslora": True},
    "shira": {"r": 8, "random_seed": 0},  # or its positions would depend on the state of a run
}

# Measured on the models of `petlbench check`.
NO_IDENTITY = {"c3a", "fourierft", "unilora", "vblora"}
_ROUNDED = "merged in float32, its logits moved by up to 1e-4 of the largest"
NO_MERGE = {
    "fourierft": _ROUNDED,
    "lily": "PEFT has no merging for it",
    "randlora": _ROUNDED,
    "waveft": _ROUNDED,
}

# Fields of configurations that are no settings here, see above.
HIDDEN = {
    *("bias", "lora_bias", "init_weights", "init_lora_weights", "init_ia3_weights"),
    *("fan_in_fan_out", "megatron_core", "ensure_weight_tying", "use_qalora", "qalora_group_size"),
    *("save_projection", "save_only_topk_weights", "save_indices", "save_precomputed_indices"),
    *("use_effective_conv2d", "progressbar", "runtime_offload_base_weight"),
}


class Instead(Site):
    """A tuner's layer in the place of the layer that it adapts: (..., in) -> (..., out)."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self[0](x))


def plain(layer: nn.Module) -> nn.Module:
    """PyTorch's own class with the very same parameters: some tuners know no other."""
    own = next(cls for cls in (nn.Linear, nn.LayerNorm) if isinstance(layer, cls))
    made = own.__new__(own)
    made.__dict__ = {**layer.__dict__, "_modules": {}}  # without sites
    return made


@dataclass(frozen=True)
class Tuner(Method):
    """A tuner of PEFT; `make` adds the settings of its configuration."""

    distribution = "peft"

    name: ClassVar[str]
    peft_type: ClassVar[str]
    fixed: ClassVar[dict[str, Any]]  # of the configuration, beside the settings

    target_modules: str = "qkv"

    def __post_init__(self) -> None:
        settings.check(self, f"peft:{self.name}")
        self.configuration(["qkv"])

    def configuration(self, targets: list[str], **more: Any) -> Any:
        """PEFT's own configuration, for layers of these full names."""
        given = {**dataclasses.asdict(self), **self.fixed, **more}
        given["target_modules"] = exactly(targets)
        if self.peft_type == "IA3":
            given["feedforward_modules"] = exactly(n for n in targets if n.endswith("fc2"))
        with self._told():
            return peft("mapping").PEFT_TYPE_TO_CONFIG_MAPPING[self.peft_type](**given)

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What PEFT does not accept is told as the user's error; its advice is not for here."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"peft:{self.name}: {type(error).__name__}: {error}") from error

    def targets(self, shape: Shape) -> list[str]:
        """The full names of the layers that are adapted."""
        kind = "norm" if self.peft_type == "LN_TUNING" else "linear"
        names = [layer.name for layer in shape.layers if layer.kind == kind]
        ends = {name: name.rpartition(".")[2] for name in names}
        wanted = {name.strip() for name in self.target_modules.split(",")}
        if wanted == {"all"} and names:
            return names
        if missing := sorted(wanted - set(ends.values())):
            there = ", ".join(dict.fromkeys(ends.values())) or "none"
            raise UsageError(
                f"{shape.family} has no {kind} layer called {missing[0]!r} (it has: {there}); "
                f"peft:{self.name}.target_modules takes such names, or all."
            )
        return [name for name in names if ends[name] in wanted]

    def inject(self, model: nn.Module, targets: list[str], **more: Any) -> None:
        # the class and not `inject_adapter_in_model`, which refuses tuners that share tensors
        # between layers: here the layers themselves hold them
        with self._told():
            make_tuner = peft("mapping").PEFT_TYPE_TO_TUNER_MAPPING[self.peft_type]
            make_tuner(model, self.configuration(targets, **more), "default")
        del model.peft_config

    def require(self, shape: Shape) -> None:
        self.num_trainable(shape)

    def attach(self, backbone: Backbone) -> None:
        targets = self.targets(backbone.shape)
        for name in targets:
            backbone.vit.set_submodule(name, plain(backbone.vit.get_submodule(name)))
        self.inject(backbone.vit, targets)
        layer_class = peft("tuners.tuners_utils").BaseTunerLayer
        for parent in list(backbone.vit.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, layer_class):
                    setattr(parent, name, Instead([child]))

    def num_trainable(self, shape: Shape) -> int:
        # a decomposed weight would have to be there, and changes no size
        start = {"init_lora_weights": True} if self.peft_type == "LORA" else {}
        targets = self.targets(shape)
        model = empty(shape, targets)
        if self.peft_type == "SHIRA":  # it lists the positions that it draws
            model.to_empty(device="cpu")
        with torch.random.fork_rng(devices=[]):
            self.inject(model, targets, **start)
        return sum(p.numel() for p in model.parameters() if p.requires_grad)

    def identity_at_init(self) -> bool:
        return self.name not in NO_IDENTITY

    def merge(self, backbone: Backbone) -> None:
        if not self.merges:
            raise UsageError(f"peft:{self.name} cannot be merged: {NO_MERGE[self.name]}.")
        for parent in list(backbone.vit.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, Instead):
                    layer: Any = child[0]
                    base = layer.get_base_layer()
                    layer.merge()
                    merged = layer.get_base_layer()  # another module, for LayerNorms
                    base.load_state_dict(merged.state_dict())
                    setattr(parent, name, base)
        adopt_layers(backbone.vit)


def exactly(names: Iterable[str]) -> str:
    """As PEFT reads it, the modules of these full names; of a list, it would compare endings."""
    return "|".join(map(re.escape, names)) or "(?!)"


def empty(shape: Shape, names: list[str]) -> nn.Module:
    """The layers of these names, without memory, frozen, and nothing else."""
    model = nn.Module()
    made: nn.Module
    for layer in shape.layers:
        if layer.name in names:
            *path, last = layer.name.split(".")
            parent = model
            for part in path:
                if not hasattr(parent, part):
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            if layer.kind == "norm":
                made = nn.LayerNorm(layer.outputs, bias=layer.bias, device="meta")
            else:
                made = nn.Linear(layer.inputs, layer.outputs, bias=layer.bias, device="meta")
            parent.add_module(last, made)
    return model.requires_grad_(False)


def peft(module: str) -> Any:
    try:
        return importlib.import_module(f"peft.{module}")
    except ImportError as error:
        raise UsageError(
            f"methods called peft:... need the package peft ({error}): "
            "pip install 'petlbench[peft]'"
        ) from error


def fields(configuration: type, ours: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(name, type, default) of what is a setting: plain values that PEFT's base class lacks."""
    hints = typing.get_type_hints(configuration)
    general = {field.name for field in dataclasses.fields(peft("config").PeftConfig)}
    for field in dataclasses.fields(configuration):
        default = ours.get(field.name, field.default)
        if field.name not in HIDDEN | general and type(default) in (int, float, bool, str):
            choice = typing.get_origin(hints[field.name]) is Literal
            yield field.name, hints[field.name] if choice else type(default), default


def bounds(name: str) -> dict[str, float]:
    """What PEFT would take and do something else with; the rest it refuses itself."""
    if name.endswith("dropout"):
        return {"at_least": 0, "below": 1}
    return {"above": 0} if name.endswith(("alpha", "lambda")) else {}


@functools.cache
def make(name: str) -> type[Method]:
    """The method peft:<name>."""
    if name in REFUSED:
        raise UsageError(f"peft:{name} cannot be run here: {REFUSED[name]}.")
    if name not in METHODS:
        raise unknown("tuner of PEFT", f"peft:{name}", [f"peft:{known}" for known in METHODS])
    ours = {"peft_type": name, "target_modules": "qkv", **TUNERS.get(name, {})}
    peft_type = ours.pop("peft_type").upper()
    configuration = peft("mapping").PEFT_TYPE_TO_CONFIG_MAPPING.get(peft_type)
    if configuration is None:
        raise UsageError(f"the installed peft has no {peft_type}: pip install 'petlbench[peft]'")
    own = list(fields(configuration, ours))
    defaults = {field: default for field, _, default in own}
    rank = defaults.get("r", 0)
    made = dataclasses.make_dataclass(
        configuration.__name__.removesuffix("Config"),
        [(field, kind, setting(default, **bounds(field))) for field, kind, default in own],
        bases=(Tuner,),
        frozen=True,
        namespace={
            "__module__": __name__,
            "__doc__": f"{METHODS[name]}.",
            "name": name,
            "peft_type": peft_type,
            "fixed": {field: value for field, value in ours.items() if field not in defaults},
            "merges": name not in NO_MERGE,
            "search": {"r": (rank // 4, rank // 2, rank, 2 * rank)} if rank >= 4 else {},
        },
    )
    return cast("type[Method]", made)
