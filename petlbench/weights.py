"""From a backbone's name and a checkpoint to a loaded `Backbone`.

A checkpoint is identified by the SHA-256 of its file, and every key of it is accounted for:
missing keys, unexpected keys and wrong shapes are errors that name the first of them. Nothing
is unpickled except tensors (`weights_only`), and nothing downloaded is used unverified.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import sys
import zipfile
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from petlbench.errors import UsageError, unknown
from petlbench.mini import ARCHITECTURE
from petlbench.prepare import archives

if TYPE_CHECKING:
    from petlbench.backbone import Shape

EMBEDDED = "vit_mini"
# Backbones whose weights are files of petlbench.mini.
SHIPPED = {EMBEDDED: "vit_mini.safetensors", "clip:mini": "clip_mini.safetensors"}
RANDOM = "random"

# What a name starts with -> the module that knows such models; all other names are timm's.
SOURCES = {"clip": "petlbench.backbones.clip"}

# What `petlbench list backbones` shows; any other model that fits is accepted.
BACKBONES = {
    EMBEDDED: "embedded, 48 px, 1.2 M parameters, pre-trained on CIFAR-100 (offline default)",
    "vit_base_patch16_224.orig_in21k": "ViT-B/16, ImageNet-21k: the usual VTAB-1K backbone",
    "vit_base_patch16_224.augreg_in21k": "ViT-B/16, AugReg: another checkpoint; do not pool",
    "vit_small_patch14_dinov2.lvd142m": "ViT-S/14, DINOv2",
    "vit_base_patch14_reg4_dinov2.lvd142m": "ViT-B/14, DINOv2 with registers",
    "vit_base_patch16_clip_quickgelu_224.openai": "CLIP ViT-B/16 image tower",
    "vit_base_patch32_clip_quickgelu_224.openai": "CLIP ViT-B/32 image tower",
    "deit_base_patch16_224.fb_in1k": "DeiT-B/16, ImageNet-1k",
    "swin_base_patch4_window7_224.ms_in22k": "Swin-B, ImageNet-22k",
    "convnext_tiny.fb_in22k": "ConvNeXt-T, ImageNet-22k: for methods that need no blocks",
    "clip:ViT-B-16.openai": "CLIP ViT-B/16, both towers (open_clip)",
    "clip:mini": "embedded, 48 px, 1.5 M parameters, both towers, pre-trained on rendered pictures",
}

NORMALISATIONS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}

# Parts of public checkpoints that are no part of the encoder: classifiers and pre-training heads.
NOT_ENCODER = re.compile(
    r"(head(_dist)?|head\.fc|fc|pre_logits(\.fc)?|classifier)\.(weight|bias)|mask_token"
)


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and its weights: `checkpoint` is the SHA-256 of the file, or "random".

    `path` says where the file lies on this machine and is no part of the identity; None means
    the hub's cache (downloaded when first needed).
    """

    name: str
    checkpoint: str
    path: str | None = None


def specify(name: str, checkpoint: str | None = None) -> BackboneSpec:
    """Find and identify the weights. `checkpoint`: a file, "random", or None for the pre-trained.

    Nothing large is downloaded here.
    """
    name = require_known(name)
    if checkpoint == RANDOM:
        return BackboneSpec(name, RANDOM)
    if checkpoint is not None:
        path = Path(checkpoint).expanduser().resolve()
        if not path.is_file():
            raise UsageError(f"no checkpoint file at {path}.")
        if path.suffix not in READERS:
            raise UsageError(f"{path.name}: a checkpoint is one of {', '.join(READERS)}.")
        return BackboneSpec(name, sha256(path), str(path))
    if name in SHIPPED:
        path = Path(str(resources.files("petlbench.mini") / SHIPPED[name]))
        return BackboneSpec(name, sha256(path), str(path))
    return BackboneSpec(name, _hub_sha256(name))


def find(name: str, checkpoint: str, file: Path | str | None = None) -> BackboneSpec:
    """The backbone with exactly that checkpoint (a SHA-256, or "random"), on this machine."""
    if checkpoint == RANDOM:
        return BackboneSpec(name, RANDOM)
    found = specify(name, str(file) if file else None)
    if found.checkpoint != checkpoint:
        which = file or "the pre-trained one"
        raise UsageError(
            f"the run's {name} has the checkpoint {checkpoint[:12]}..., and {which} is "
            f"{found.checkpoint[:12]}...; give the same file: --checkpoint FILE."
        )
    return found


def source_of(name: str) -> Any:
    """The module that knows models of such a name; None for timm's."""
    prefix, colon, _ = name.partition(":")
    if not colon:
        return None
    if prefix not in SOURCES:
        raise unknown("kind of backbone", prefix, SOURCES, "timm's have no colon in their name.")
    return importlib.import_module(SOURCES[prefix])


def reads_text(name: str) -> bool:
    """Whether it has a text tower, and so obeys the rules of a protocol that are about one."""
    return getattr(source_of(name), "READS_TEXT", False)


def require_known(name: str) -> str:
    """The name as it enters a run's identity."""
    if source := source_of(name):
        return str(source.require_known(name))
    if name == EMBEDDED:
        return name
    import timm

    if not timm.is_model(name):
        known = [EMBEDDED, *BACKBONES, *timm.list_models()]
        raise unknown("backbone", name, known, "See: petlbench list backbones")
    base, _, tag = name.partition(".")
    tags = [full.partition(".")[2] for full in timm.list_pretrained(base + "*")]
    if tag and name not in timm.list_pretrained(base + ".*"):
        raise unknown(f"weights of {base}", tag, {t for t in tags if t})
    return name


def normalisation(name: str, backbone: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation, RGB in [0, 1]; "checkpoint" is what it was pre-trained with."""
    if name in NORMALISATIONS:
        return NORMALISATIONS[name]
    if backbone == EMBEDDED:
        return NORMALISATIONS["half"]
    if source := source_of(backbone):
        return source.normalisation(backbone)  # type: ignore[no-any-return]
    import timm

    config = timm.get_pretrained_cfg(backbone)
    if config is None:
        raise UsageError(
            f"timm does not know with which mean and std {backbone} was trained; "
            "choose one: --set protocol.normalisation=imagenet (or half, clip, none)."
        )
    return tuple(config.mean), tuple(config.std)


def options(rules: Mapping[str, Any]) -> dict[str, Any]:
    """What of a protocol's resolved rules a model is built with, beside size and drop-path."""
    return {name: rules[name] for name in ("towers",) if name in rules}


def create(name: str, image_size: int, drop_path: float = 0.0, **options: Any) -> Any:
    """The model without weights and without head, for square images of `image_size` px."""
    if source := source_of(name):
        return source.create(name, image_size, drop_path, **options)
    import timm
    from timm.models.vision_transformer import VisionTransformer

    if name == EMBEDDED:
        shape: dict[str, Any] = dict(ARCHITECTURE)
        return VisionTransformer(
            img_size=image_size, num_classes=0, drop_path_rate=drop_path, **shape
        )
    options |= {"img_size": image_size, "num_classes": 0, "drop_path_rate": drop_path}
    try:
        try:
            return timm.create_model(name, **options)
        except TypeError as error:
            if "'img_size'" not in str(error):
                raise
            del options["img_size"]  # a convolutional model takes images of any size
            return timm.create_model(name, **options)
    except (AssertionError, TypeError, ValueError) as error:
        raise UsageError(
            f"timm cannot build {name} for images of {image_size} px: {error}. "
            "Plain vision transformers (vit_*, deit_*) take any multiple of their patch size."
        ) from error


def shape(spec: BackboneSpec, image_size: int, **options: Any) -> Shape:
    """Facts of the backbone at that image size; refuses what does not fit.

    A checkpoint on this machine is loaded and so found to fit; nothing is downloaded.
    """
    import torch

    if spec.path is None:
        with torch.device("meta"):
            spec = BackboneSpec(spec.name, RANDOM)
            return build(spec, image_size, **options).shape  # type: ignore[no-any-return]
    return build(spec, image_size, **options).shape  # type: ignore[no-any-return]


def build(spec: BackboneSpec, image_size: int, drop_path: float = 0.0, **options: Any) -> Any:
    """A `petlbench.backbone.Backbone` with its weights loaded, ready for `prepare` and `attach`."""
    import torch

    from petlbench.backbones import adopt

    # weights that a checkpoint replaces need not be drawn, which takes seconds
    with nullcontext() if spec.checkpoint == RANDOM else torch.device("meta"):
        model = create(spec.name, image_size, drop_path, **options)
    if spec.checkpoint != RANDOM and any(True for _ in model.buffers()):
        model = create(spec.name, image_size, drop_path, **options)  # no checkpoint has its buffers
    left_out: list[str] = []
    if spec.checkpoint != RANDOM:
        path = Path(spec.path) if spec.path else _hub_file(spec.name)
        if sha256(path) != spec.checkpoint:
            raise UsageError(f"{path} is not the file with SHA-256 {spec.checkpoint[:12]}...")
        left_out = load_checkpoint(model, path, source_of(spec.name))
    try:
        backbone = adopt(model)
    except UsageError as error:
        raise UsageError(f"{spec.name}: {error} See: petlbench list backbones") from None
    patch = backbone.shape.patch_size
    if image_size % patch[0] or image_size % patch[1]:
        near = max(1, round(image_size / patch[0])) * patch[0]
        raise UsageError(
            f"--image-size {image_size} is not a multiple of the patch size {patch[0]} of "
            f"{spec.name}; the nearest that is: {near}."
        )
    backbone.left_out = left_out
    return backbone


def load_checkpoint(model: Any, path: Path, source: Any = None) -> list[str]:
    """Load `path` into the model; returns the keys left out (classifiers).

    Position embeddings are resampled to the model's grid (bicubic, as timm does).
    Raises UsageError naming the first missing, unexpected and misshapen tensors.
    """
    import torch

    try:
        if zipfile.is_zipfile(path):
            archives.refuse_bomb(path)
        state = READERS[path.suffix](path, model)
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{path} cannot be read as a checkpoint: is it really {path.suffix}? {_one_line(error)}"
        ) from error
    nested = (state[key] for key in ("model", "state_dict") if isinstance(state.get(key), dict))
    state = next(nested, state)
    if not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        raise UsageError(f"{path} does not hold a state dict of tensors.")
    state = {key.removeprefix("module."): value.float() for key, value in state.items()}
    patch = state.get("patch_embed.proj.weight")
    wanted = model.state_dict().get("patch_embed.proj.weight")
    if patch is not None and wanted is not None and patch.shape != wanted.shape:
        raise UsageError(
            f"{path.name} does not fit this backbone: patch_embed.proj.weight is "
            f"{list(patch.shape)}, the backbone's is {list(wanted.shape)}."
        )
    left_out = sorted(key for key in state if NOT_ENCODER.fullmatch(key))
    try:
        # each family of timm renames and resamples what its published checkpoints hold
        family = source or sys.modules[type(model).__module__]
        state = getattr(family, "checkpoint_filter_fn", lambda state, model: state)(state, model)
    except Exception as error:
        raise UsageError(f"{path.name} does not fit this backbone: {_one_line(error)}") from error
    state = {key: value for key, value in state.items() if not NOT_ENCODER.fullmatch(key)}
    own = model.state_dict()
    problems = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{key} {list(state[key].shape)} instead of {list(own[key].shape)}"
            for key in own
            if key in state and state[key].shape != own[key].shape
        ],
    }
    if any(problems.values()):
        told = [
            f"{len(keys)} {kind}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
            for kind, keys in problems.items()
            if keys
        ]
        raise UsageError(f"{path.name} does not fit this backbone: {'; '.join(told)}.")
    model.load_state_dict(state, assign=True)
    return left_out


def _read_safetensors(path: Path, model: Any) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(path)


def _read_torch(path: Path, model: Any) -> dict[str, Any]:
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, dict):
        raise UsageError(f"{path} does not hold a state dict.")
    return state


def _read_npz(path: Path, model: Any) -> dict[str, Any]:
    """Google's ViT checkpoints (`ViT-B_16.npz`), renamed to timm's keys.

    JAX keeps dense kernels as (in, out) and attention kernels per head, convolutions as HWIO.
    """
    import numpy as np
    import torch

    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} cannot be read as a checkpoint: it is no .npz archive.")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key.removeprefix("opt/target/"): archive[key] for key in archive.files}
    except zipfile.BadZipFile as error:
        raise UsageError(f"{path} is not an .npz file: {error}") from error
    dim = model.embed_dim
    blocks = "Transformer/encoderblock_"
    state: dict[str, Any] = {}

    def tensor(key: str) -> Any:
        return torch.from_numpy(arrays.pop(key))

    def pair(source: str, target: str, norm: bool = False) -> None:
        weight = tensor(f"{source}/{'scale' if norm else 'kernel'}")
        state[f"{target}.weight"] = weight if norm else weight.T
        state[f"{target}.bias"] = tensor(f"{source}/bias")

    try:
        state["cls_token"] = tensor("cls")
        state["pos_embed"] = tensor("Transformer/posembed_input/pos_embedding")
        state["patch_embed.proj.weight"] = tensor("embedding/kernel").permute(3, 2, 0, 1)
        state["patch_embed.proj.bias"] = tensor("embedding/bias")
        pair("Transformer/encoder_norm", "norm", norm=True)
        for i in sorted({int(k[len(blocks) :].split("/")[0]) for k in arrays if blocks in k}):
            source, target = f"{blocks}{i}", f"blocks.{i}"
            pair(f"{source}/LayerNorm_0", f"{target}.norm1", norm=True)
            pair(f"{source}/LayerNorm_2", f"{target}.norm2", norm=True)
            attention = f"{source}/MultiHeadDotProductAttention_1"
            heads = [f"{attention}/{part}" for part in ("query", "key", "value")]
            state[f"{target}.attn.qkv.weight"] = torch.cat(
                [tensor(f"{head}/kernel").flatten(1).T for head in heads]  # (D, h, D/h) -> (D, D)
            )
            state[f"{target}.attn.qkv.bias"] = torch.cat(
                [tensor(f"{head}/bias").flatten() for head in heads]
            )
            state[f"{target}.attn.proj.weight"] = tensor(f"{attention}/out/kernel").flatten(0, 1).T
            state[f"{target}.attn.proj.bias"] = tensor(f"{attention}/out/bias")
            pair(f"{source}/MlpBlock_3/Dense_0", f"{target}.mlp.fc1")
            pair(f"{source}/MlpBlock_3/Dense_1", f"{target}.mlp.fc2")
    except KeyError as error:
        raise UsageError(
            f"{path.name} is not a Google ViT checkpoint: no array {error}; "
            f"it has {', '.join(sorted(arrays)[:3])}, ..."
        ) from error
    if state["cls_token"].shape[-1] != dim:
        raise UsageError(
            f"{path.name} does not fit this backbone: its width is "
            f"{state['cls_token'].shape[-1]}, the backbone's is {dim}."
        )
    rest = {
        key.replace("/kernel", ".weight").replace("/bias", ".bias"): k for key, k in arrays.items()
    }
    state.update({key: torch.from_numpy(value) for key, value in rest.items()})
    return {key: value.contiguous() for key, value in state.items()}


READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
}


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hub_sha256(name: str) -> str:
    """SHA-256 of the pre-trained file, from the hub's cache or its metadata."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    repository, file = _hub_location(name)
    cached = try_to_load_from_cache(repository, file)
    if isinstance(cached, str):
        found, published = sha256(Path(cached)), Path(cached).resolve().name
        if re.fullmatch("[0-9a-f]{64}", published) and found != published:
            raise UsageError(f"{cached} is damaged: delete it, and it is downloaded again.")
        return found
    try:
        info = HfApi().model_info(repository, files_metadata=True, timeout=10)
    except Exception as error:
        raise UsageError(
            f"the weights of {name} are not on this machine and the hub ({repository}) cannot be "
            f"reached: {type(error).__name__}. Give a file: --checkpoint "
            "FILE.safetensors|.npz|.pth, or try it with --checkpoint random."
        ) from error
    for sibling in info.siblings or []:
        if sibling.rfilename == file and sibling.lfs is not None:
            return str(sibling.lfs.sha256)
    raise UsageError(
        f"{repository} publishes no checksum for {file}; download it yourself and "
        "give it as --checkpoint."
    )


def _hub_file(name: str) -> Path:
    """The pre-trained file, downloaded if need be; `build` verifies its SHA-256."""
    from huggingface_hub import hf_hub_download

    repository, file = _hub_location(name)
    try:
        return Path(hf_hub_download(repository, file))
    except Exception as error:
        raise UsageError(f"cannot download {file} of {repository}: {_one_line(error)}") from error


def _hub_location(name: str) -> tuple[str, str]:
    if source := source_of(name):
        return source.location(name)  # type: ignore[no-any-return]
    import timm

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise UsageError(f"timm has no pre-trained weights for {name}; give --checkpoint FILE.")
    repository = config.hf_hub_id
    if repository == "timm/":
        tag = f".{config.tag}" if config.tag else ""
        repository = f"timm/{config.architecture}{tag}"
    return repository, config.hf_hub_filename or "model.safetensors"


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"
