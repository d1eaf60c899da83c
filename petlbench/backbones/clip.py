"""CLIP with both towers, by open_clip: `clip:ViT-B-16.openai`, `clip:ViT-B-16`, `clip:./my.json`.

`clip:mini` is embedded in the package: mini/MODEL_CARD.md.

Radford et al., Learning Transferable Visual Models From Natural Language Supervision, ICML 2021
(arXiv:2103.00020). The protocol says which towers are adapted and what classifies:

    towers image, head fresh    a linear layer on the image feature W v, trained
    towers image, head text     a linear layer on f = W v / |W v| that starts with zero bias and
                                weights exp(t) g_c, trained: Convpass-CLIP (arXiv:2207.07039)
    towers text or both         logits exp(t) f . g_c in every step, and no head that trains
    retrieval                   f and g of captions, each behind a linear map where only it trains

v is the tower's pooled token, W its projection, t the frozen logit scale and g_c the feature, of
length 1, of class c's prompt. Both towers are made of the blocks of a plain vision transformer;
those of a text are causal. Images (B, 3, H, W) -> (B, D), prompts (C, N) -> (C, D).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from timm.layers.attention import Attention
from timm.layers.pos_embed import resample_abs_pos_embed
from timm.models.vision_transformer import Block as TimmBlock
from torch import Tensor, nn

from petlbench.backbone import Backbone, Block, Norm, changes
from petlbench.backbones.vit import transformer_block
from petlbench.errors import UsageError, unknown

# -- names, configurations, weights -------------------------------------------------------------

PREFIX = "clip:"
READS_TEXT = True
TOWERS = ("image", "text", "both")
EMBEDDED = "mini"  # its configuration and its weights are files of petlbench.mini

# What of a configuration is understood; another entry that says something is refused.
UNDERSTOOD = {
    "": {"embed_dim", "quick_gelu", "vision_cfg", "text_cfg", "custom_text"},
    "vision_cfg": {
        *("image_size", "patch_size", "layers", "width", "head_width", "mlp_ratio"),
        *("ls_init_value", "no_ln_pre", "pos_embed_type", "pool_type", "final_ln_after_pool"),
        *("act_kwargs", "norm_kwargs", "patch_dropout"),
    },
    "text_cfg": {
        *("context_length", "vocab_size", "layers", "width", "heads", "mlp_ratio"),
        *("ls_init_value", "act_kwargs", "norm_kwargs", "tokenizer_kwargs"),
    },
}
# No weights: sizes and a mask that some checkpoints hold too.
NOT_WEIGHTS = {"input_resolution", "context_length", "vocab_size", "attn_mask"}
# What a damaged vocabulary raises.
UNREADABLE = (OSError, EOFError)


def require_known(name: str) -> str:
    """The name as it enters a run's identity: a configuration file's carries its SHA-256.

    If a vocabulary lies beside the file, it is of both.
    """
    base, tag = _parts(name)
    if base == EMBEDDED:
        if tag:
            raise UsageError(f"{PREFIX}{EMBEDDED} has one set of weights, and no {tag!r}.")
    elif _is_file(base):
        vocabulary = _vocabulary(base)
        content = _read(base) + (_read(vocabulary) if vocabulary else b"")
        digest = hashlib.sha256(content).hexdigest()[:8]
        if tag and tag != digest:
            raise UsageError(f"{base} is not the file that the run was made with (#{tag}).")
        name = f"{PREFIX}{base}#{digest}"
    else:
        known = [EMBEDDED, *open_clip().list_models()]
        if base not in known:
            lowered = {each.lower(): each for each in known}
            if base.lower() in lowered:
                raise UsageError(f"unknown CLIP {base!r}. Did you mean {lowered[base.lower()]}?")
            hint = "Your own: give its configuration, as in clip:./config.json"
            raise unknown("CLIP", base, known, hint)
        tags = open_clip().list_pretrained_tags_by_model(base)
        if tag and tag not in tags:
            raise unknown(f"weights of {PREFIX}{base}", tag, tags)
    reason = _refusal(_configuration(name))
    if reason:
        raise UsageError(f"{name} is not a backbone for petlbench: {reason}.")
    return name


def normalisation(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation: the pre-trained weights', the file's, or else OpenAI's."""
    base, _ = _parts(name)
    found = _file(base).get("preprocess_cfg", {}) if _is_file(base) else _pretrained(name)
    constants = open_clip().constants
    mean = found.get("mean", constants.OPENAI_DATASET_MEAN)
    return tuple(mean), tuple(found.get("std", constants.OPENAI_DATASET_STD))


def location(name: str) -> tuple[str, str]:
    """Repository on the hub and file of the pre-trained weights."""
    base, _ = _parts(name)
    found = _pretrained(name)
    if not found.get("hf_hub"):
        tags = [] if _is_file(base) else open_clip().list_pretrained_tags_by_model(base)
        on_hub = [t for t in tags if _pretrained(f"{PREFIX}{base}.{t}").get("hf_hub")]
        which = (
            f"say which: {PREFIX}{base}.{on_hub[0]} ({', '.join(on_hub)}), or " if on_hub else ""
        )
        raise UsageError(
            f"{name} names no weights that the hub publishes with a checksum; "
            f"{which}give --checkpoint FILE (or random)."
        )
    repository, _, file = found["hf_hub"].rpartition("/")
    return repository, file or open_clip().constants.HF_SAFE_WEIGHTS_NAME


def create(name: str, image_size: int, drop_path: float = 0.0, towers: str = "image") -> Any:
    """open_clip's model without weights, for square images of `image_size` px."""
    configuration = _configuration(name)
    configuration.pop("custom_text", None)
    vision, text = configuration["vision_cfg"], configuration["text_cfg"]
    vision["image_size"] = image_size
    vision.pop("patch_dropout", None)  # a part of pre-training
    tokenizer = text.pop("tokenizer_kwargs", {})
    try:
        if vocabulary := _vocabulary(_parts(name)[0]):
            tokenizer["bpe_path"] = vocabulary
        model = open_clip().model.CLIP(**configuration)
        length = model.context_length
        model.tokenizer = open_clip().SimpleTokenizer(context_length=length, **tokenizer)
    except (AssertionError, KeyError, TypeError, ValueError, RuntimeError, *UNREADABLE) as error:
        told = f"{type(error).__name__}: {error}"
        raise UsageError(f"open_clip cannot build {name} for {image_size} px: {told}") from error
    model.drop_path, model.towers = drop_path, towers
    return model


def checkpoint_filter_fn(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Names of an open_clip checkpoint of any age; position embeddings for the model's grid."""
    state = {key.removeprefix("text."): value for key, value in state.items()}
    state = {key: value for key, value in state.items() if key not in NOT_WEIGHTS}
    key = "visual.positional_embedding"
    if key in state and len(state[key]) != len(model.visual.positional_embedding):
        size = list(model.visual.grid_size)
        state[key] = resample_abs_pos_embed(state[key][None], size, num_prefix_tokens=1)[0]
    return state


def open_clip() -> Any:
    """The package, which takes seconds to import."""
    if importlib.util.find_spec("open_clip") is None:
        raise UsageError(f"{PREFIX} backbones need open_clip: pip install open_clip_torch.")
    return importlib.import_module("open_clip")


def _parts(name: str) -> tuple[str, str]:
    """(model, tag) of clip:model.tag, or (file, digest) of clip:file.json#digest."""
    base = name.removeprefix(PREFIX)
    file, _, digest = base.partition("#")
    if file.endswith(".json"):
        return file, digest
    base, _, tag = base.partition(".")
    return base, tag


def _is_file(base: str) -> bool:
    return base == EMBEDDED or base.endswith(".json")


def _path(file: str) -> Path:
    if file == EMBEDDED:
        return Path(str(resources.files("petlbench.mini") / "clip_mini.json"))
    return Path(file).expanduser()


def _read(file: str) -> bytes:
    try:
        return _path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the configuration {file}: {error.strerror}.") from error


def _vocabulary(base: str) -> str:
    """The file of byte-pair merges that a configuration names, relative to itself; or empty."""
    if not _is_file(base):
        return ""
    found = _file(base)
    merges = found.get("model_cfg", found)["text_cfg"].get("tokenizer_kwargs", {}).get("bpe_path")
    return str(_path(base).parent / merges) if merges else ""


def _file(file: str) -> dict[str, Any]:
    """A configuration as open_clip has them, or as it puts them on the hub, around `model_cfg`."""
    try:
        found = json.loads(_read(file))
        inner = found.get("model_cfg", found)
        if not isinstance(inner["vision_cfg"], dict) or not isinstance(inner["text_cfg"], dict):
            raise TypeError("a tower is no object")
        if not isinstance(inner["embed_dim"], int):
            raise TypeError("embed_dim is no number")
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise UsageError(
            f"{file} is not a configuration of open_clip, which has embed_dim, vision_cfg and "
            f"text_cfg: {type(error).__name__}: {error}"
        ) from error
    return cast("dict[str, Any]", found)


def _pretrained(name: str) -> dict[str, Any]:
    base, tag = _parts(name)
    known = {} if _is_file(base) else open_clip().get_pretrained_cfg(base, tag)
    return cast("dict[str, Any]", known or {})


def _configuration(name: str) -> dict[str, Any]:
    """What `open_clip.model.CLIP` is made with; the activation is that of the weights."""
    base, _ = _parts(name)
    if _is_file(base):
        found = _file(base)
        return cast("dict[str, Any]", found.get("model_cfg", found))
    known: dict[str, Any] = open_clip().get_model_config(base)
    if _pretrained(name).get("quick_gelu"):
        known["quick_gelu"] = True
    return known


def _refusal(configuration: dict[str, Any]) -> str:
    """Why petlbench does not describe such a model; empty if it does."""
    vision, text = configuration["vision_cfg"], configuration["text_cfg"]
    if vision.get("timm_model_name"):
        timm = vision["timm_model_name"]
        return f"its image tower is timm's {timm}: that name, without clip:, is one"
    if text.get("hf_model_name") or text.get("hf_tokenizer_name"):
        return "its text tower or tokenizer is of another library"
    if not isinstance(vision.get("layers", 12), int):
        return "its image tower is a ResNet"
    if vision.get("pool_type", "tok") not in ("tok", "avg"):
        return "its image tower has no pooled feature"
    for part, understood in UNDERSTOOD.items():
        values = configuration[part] if part else configuration
        odd = [key for key, value in values.items() if key not in understood and value]
        if odd:
            return f"petlbench does not know what {', '.join(sorted(odd))} would change"
    return ""


# -- towers ---------------------------------------------------------------------------------------


class Causal(Attention):
    """Attention to the tokens before and to itself: (B, N, D) -> (B, N, D)."""

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        count = x.shape[1]
        mask = x.new_full((count, count), float("-inf")).triu(1)
        return super().forward(x, attn_mask=mask)


def plain_block(old: Any, attention: type[Attention], drop_path: float) -> TimmBlock:
    """open_clip's block with timm's names and the very same parameters."""
    dim, heads = old.attn.embed_dim, old.attn.num_heads
    with torch.device("meta"):
        block: Any = TimmBlock(dim, heads, mlp_ratio=1, drop_path=drop_path)
        block.attn = attention(dim, heads, qkv_bias=True)
    block.norm1, block.norm2 = Norm.adopt(old.ln_1), Norm.adopt(old.ln_2)
    block.attn.qkv.weight, block.attn.qkv.bias = old.attn.in_proj_weight, old.attn.in_proj_bias
    block.attn.proj.weight, block.attn.proj.bias = old.attn.out_proj.weight, old.attn.out_proj.bias
    block.mlp.fc1, block.mlp.act, block.mlp.fc2 = old.mlp.c_fc, old.mlp.gelu, old.mlp.c_proj
    block.ls1, block.ls2 = old.ls_1, old.ls_2
    return cast(TimmBlock, block)


class Tower(nn.Module):
    """One encoder, with the parameters of open_clip's."""

    def __init__(
        self, transformer: Any, attention: type[Attention], drop_path: float, projection: Any
    ) -> None:
        super().__init__()
        rates = torch.linspace(0, drop_path, len(transformer.resblocks), device="cpu").tolist()
        self.blocks = nn.ModuleList(
            plain_block(block, attention, rate)
            for block, rate in zip(transformer.resblocks, rates, strict=True)
        )
        self.projection: nn.Parameter = projection  # (width, D)
        self.num_features = projection.shape[1]

    def reset_classifier(self, classes: int) -> None:
        """It has none."""

    def wrap(self, grid: tuple[int, int] | None, prefix: int, tokens: int) -> Iterator[Block]:
        for number, block in enumerate(self.blocks):
            self.blocks[number] = wrapped = transformer_block(block, grid, prefix, tokens, tokens)
            yield wrapped


class Image(Tower):
    """Patches and [cls] -> blocks -> norm, pooling, projection."""

    def __init__(self, model: Any) -> None:
        visual = model.visual
        drop_path = model.drop_path if model.towers != "text" else 0.0
        super().__init__(visual.transformer, Attention, drop_path, visual.proj)
        self.conv = visual.conv1
        self.class_embedding = visual.class_embedding
        self.positional_embedding = visual.positional_embedding
        plain = isinstance(visual.ln_pre, nn.Identity)
        self.norm_pre = visual.ln_pre if plain else Norm.adopt(visual.ln_pre)
        self.norm = Norm.adopt(visual.ln_post)
        self.average, self.norm_last = visual.pool_type == "avg", visual.final_ln_after_pool
        self.grid, self.patch_size = tuple(visual.grid_size), tuple(visual.patch_size)
        self.image_size = tuple(visual.image_size)

    def embed(self, images: Tensor) -> Tensor:
        x = self.conv(images).flatten(2).transpose(1, 2)
        cls = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = torch.cat([cls, x], dim=1) + self.positional_embedding
        return cast(Tensor, self.norm_pre(x))

    def pool(self, x: Tensor) -> Tensor:
        rows, columns = self.grid  # what stands between [cls] and them are prompts
        x = x if self.norm_last else self.norm(x)
        x = x[:, -rows * columns :].mean(1) if self.average else x[:, 0]
        return (self.norm(x) if self.norm_last else x) @ self.projection


class Text(Tower):
    """Tokens (C, N) -> causal blocks -> norm and projection of the last token of each text."""

    def __init__(self, model: Any) -> None:
        drop_path = model.drop_path if model.towers != "image" else 0.0
        super().__init__(model.transformer, Causal, drop_path, model.text_projection)
        self.token_embedding = model.token_embedding
        self.positional_embedding = model.positional_embedding
        self.norm = Norm.adopt(model.ln_final)

    def forward(
        self, tokens: Tensor, through: Callable[[Any, Tensor, Any], tuple[Tensor, Any]]
    ) -> Tensor:
        x, state = self.token_embedding(tokens), None
        x = x + self.positional_embedding[: tokens.shape[1]]
        for block in self.blocks:
            x, state = through(block, x, state)
        last = tokens.argmax(1)  # the mark at the end has the highest number
        x = x[torch.arange(len(x), device=x.device), last]
        return cast(Tensor, self.norm(x)) @ self.projection


class Both(nn.Module):
    """Two towers that are adapted together."""

    def __init__(self, image: Image, text: Text) -> None:
        super().__init__()
        self.image, self.text = image, text
        self.num_features = image.num_features

    def reset_classifier(self, classes: int) -> None:
        """It has none."""


class Maps(nn.Module):
    """What stands behind the towers in retrieval: two D x D maps, or nothing (D = 0)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.image: nn.Module = nn.Identity()
        self.text: nn.Module = nn.Identity()
        if dim:
            self.image, self.text = (nn.Linear(dim, dim, bias=False) for _ in range(2))
            for layer in (self.image, self.text):
                nn.init.eye_(layer.weight)


class CLIP(Backbone):
    """`vit` is what is adapted; methods see nothing of a tower that is not."""

    def __init__(self, model: Any) -> None:
        own = dict(model.named_parameters())
        model.requires_grad_(False)
        image, text = Image(model), Text(model)
        adapted = {"image": image, "text": text, "both": Both(image, text)}[model.towers]
        self.__dict__.update(towers=model.towers, both=(image, text))  # modules of a tuple: hidden
        super().__init__(adapted)
        self.names = own
        self.tokenizer = model.tokenizer
        self.normalised = False  # whether features have length 1
        self.register_buffer("scale", model.logit_scale.detach().exp(), persistent=False)
        self.register_buffer("tokens", None, persistent=False)  # of the prompts, where needed

    towers: str
    both: tuple[Image, Text]
    scale: Tensor
    tokens: Tensor | None

    @staticmethod
    def refuses(model: nn.Module) -> str:
        name = f"{type(model).__module__}.{type(model).__name__}"
        return "" if name == "open_clip.model.CLIP" else "not a CLIP by open_clip"

    def wrap(self) -> Iterator[Block]:
        image, text = self.both
        if self.towers != "text":
            rows, columns = image.grid
            yield from image.wrap((rows, columns), 1, 1 + rows * columns)
        if self.towers != "image":
            yield from text.wrap(None, 0, len(text.positional_embedding))

    @property
    def encoder(self) -> nn.Module:
        return self.both[0]

    @property
    def path(self) -> Sequence[nn.Module]:
        return list(self.both[0].blocks)

    def embed(self, images: Tensor) -> Tensor:
        return self.both[0].embed(images)

    def pool(self, x: Tensor) -> Tensor:
        feature = self.both[0].pool(x)
        return F.normalize(feature.float(), dim=-1) if self.normalised else feature

    def tail(self) -> list[nn.Module]:
        return [self.both[0].norm]

    def geometry(self) -> tuple[tuple[int, int], tuple[int, int]]:
        image = self.both[0]
        return image.image_size, image.patch_size

    def prepare(self, num_classes: int, texts: Sequence[str] = ()) -> None:
        if not texts and self.towers != "image":
            raise UsageError("a text tower is adapted through prompts, and there are none.")
        self.normalised, self.tokens = bool(texts), None
        super().prepare(num_classes)
        if texts:
            tokens = self.tokenize(texts)
            if self.towers == "image":
                with torch.no_grad():
                    self.head.weight.copy_(self.scale * self.class_features(tokens))
                    self.head.bias.zero_()
            else:
                self.tokens, self.head = tokens.to(self.scale.device), nn.Identity()

    def prepare_pairs(self, maps: bool) -> None:
        """Freeze everything, for images and texts that are compared by their features.

        With `maps`, a linear map of either feature trains, and starts as the identity.
        """
        self.requires_grad_(False)
        self.normalised, self.tokens, self.num_classes = False, None, 0
        self.head = Maps(self.shape.num_features if maps else 0)

    def image_features(self, x: Tensor, start: int = 0) -> Tensor:
        """What `encode(images, stop=start)` gave -> (B, D) of length 1."""
        return F.normalize(self.head.image(self.encode(x, start).float()), dim=-1)

    def text_features(self, tokens: Tensor) -> Tensor:
        """(B, N) -> (B, D) of length 1."""
        text = self.both[1]
        features = text(tokens.to(text.projection.device), self.through).float()
        return F.normalize(self.head.text(features.to(self.scale.device)), dim=-1)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Texts -> (B, N) on the CPU."""
        return self.cut(self.tokenizer(list(texts)))

    @staticmethod
    def cut(tokens: Tensor) -> Tensor:
        """Without what is behind the longest text: causal attention does not look there."""
        return tokens[:, : int(tokens.argmax(1).max()) + 1]

    @property
    def texts_frozen(self) -> bool:
        """Whether a text has the same feature in every epoch."""
        modules = (*self.both[1].modules(), *self.head.text.modules())
        trains = any(p.requires_grad for module in modules for p in module.parameters())
        return not trains and not any(map(changes, modules))

    def put_head(self, width: int) -> None:
        if self.normalised and width != self.shape.num_features:
            raise UsageError("a head made from texts reads the image feature and nothing else.")
        super().put_head(width)

    def class_features(self, tokens: Tensor) -> Tensor:
        """(C, N) -> (C, D), of length 1."""
        return F.normalize(self.both[1](tokens, self.through).float(), dim=-1)

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        if isinstance(self.head, Maps):
            return self.image_features(x, start)
        if self.tokens is None:
            return super().forward(x, start)
        features, of_classes = self.encode(x, start), self.class_features(self.tokens)
        with torch.autocast(features.device.type, enabled=False):
            return self.scale * features.float() @ of_classes.T

    def _apply(self, *arguments: Any, **options: Any) -> CLIP:
        """To another device or type, an image tower that is not adapted too."""
        if self.towers == "text":
            self.both[0]._apply(*arguments, **options)  # type: ignore[no-untyped-call]
        return cast(CLIP, super()._apply(*arguments, **options))  # type: ignore[no-untyped-call]
