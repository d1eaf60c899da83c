"""A pre-trained encoder with named sites where methods attach.

The pre-norm block is written down once, here. It knows sites, not methods:

    u = norm(x)              u = before(u)
    y = drop_path(layer_scale(layer(u)))
                             y = after(y)
    x = x + y + parallel(norm(x)) + parallel_residual(x)
    x = out(x)               all this for MHSA, then for the MLP

    x = tokens(x)            before both: may change the number of tokens
    x, state = side(x_in, x, state)     after both: what a block hands to the next beside tokens

    W x + b + deltas(x)      in every linear layer
    W, b = weights(W, b)     in every linear layer, convolution and LayerNorm

    f = features(f, state)   what the head reads, after the last block

Every site is an `nn.ModuleList`; attaching is appending. `backbones/` says what each family of
models makes of its embedding, its blocks and its pooling.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, cast

import torch
import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.layers.norm import LayerNorm
from timm.layers.patch_dropout import PatchDropout
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from petlbench.errors import UsageError


@dataclass(frozen=True)
class LayerShape:
    """A layer with a weight: a linear layer, a convolution or a LayerNorm."""

    name: str  # within the backbone
    kind: str  # "linear", "conv" or "norm"
    inputs: int  # that one output depends on; 1 for a LayerNorm
    outputs: int
    bias: bool


@dataclass(frozen=True)
class BlockShape:
    """One block. Sizes in elements."""

    dim: int
    num_heads: int
    grid: tuple[int, int] | None  # tokens per column and per row; None: tokens of a text
    num_prefix_tokens: int  # [cls] and registers, in front of the grid
    num_tokens: int
    attended: int  # tokens that one token attends to: all of them, or those of its window
    linears: dict[str, tuple[int, int]]  # name (qkv, proj, fc1, fc2) -> (inputs, outputs)
    num_parameters: int

    @property
    def windowed(self) -> bool:
        return self.attended < self.num_tokens


@dataclass(frozen=True)
class Shape:
    """What a closed-form parameter count may depend on. Patches in pixels."""

    family: str  # "ViT", "Swin", "CLIP", or the class of another timm model
    image_size: tuple[int, int]  # the smallest, if the model takes several
    patch_size: tuple[int, int]
    blocks: tuple[BlockShape, ...]  # none if the model is not made of transformer blocks
    layers: tuple[LayerShape, ...]  # of the whole backbone, those in its blocks included
    num_features: int  # width of what the head reads
    num_parameters: int  # of the whole backbone, without head
    num_biases: int  # elements of all its bias vectors
    num_norms: int  # elements of the weights and biases of its LayerNorms

    @property
    def reads_text(self) -> bool:
        """Whether some blocks have tokens of a text, which lie on no grid."""
        return any(block.grid is None for block in self.blocks)

    @property
    def uniform(self) -> bool:
        """Whether all blocks have the same width and the same tokens."""
        return len({(block.dim, block.num_tokens) for block in self.blocks}) == 1


class Site(nn.ModuleList):
    """Where methods attach."""


class Layer(nn.Module):
    """A layer whose weight and bias pass through the modules of its site `weights`."""

    weight: Any  # a parameter
    bias: Any  # a parameter or None
    weights: Site

    def effective(self) -> tuple[Tensor, Tensor | None]:
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        for module in self.weights:
            weight, bias = module(weight, bias)
        return weight, bias

    @classmethod
    def adopt(cls, layer: nn.Module) -> Any:
        adopted = cls.__new__(cls)
        adopted.__dict__ = layer.__dict__  # the very same parameters, not copies
        adopted.weights = Site()
        return adopted


class Linear(Layer, nn.Linear):
    """W x + b + sum of deltas(x): (..., in) -> (..., out). Same parameter names as `nn.Linear`."""

    deltas: Site

    @classmethod
    def adopt(cls, layer: nn.Module) -> Linear:
        adopted = cast(Linear, super().adopt(layer))
        adopted.deltas = Site()
        return adopted

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, *self.effective())
        for delta in self.deltas:
            y = y + delta(x)
        return y


class Conv(Layer, nn.Conv2d):
    """As `nn.Conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self._conv_forward(x, *self.effective()))


class Norm(Layer, nn.LayerNorm):
    """As `nn.LayerNorm`."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.effective()
        return F.layer_norm(x, self.normalized_shape, weight, bias, self.eps)


ADOPTED: dict[type[nn.Module], type[Layer]] = {
    nn.Linear: Linear,
    nn.Conv2d: Conv,
    nn.LayerNorm: Norm,
    LayerNorm: Norm,
}


def adopt_layers(model: nn.Module) -> None:
    """Give every linear layer, convolution and LayerNorm in `model` its sites, in place."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if (kind := ADOPTED.get(type(child))) and getattr(child, "weight", None) is not None:
                setattr(parent, name, kind.adopt(child))


class CompiledDropPath(DropPath):
    """timm's, reading its rate from a tensor: a number would become part of the compiled code.

    A plain attribute and no buffer, for it is no part of what is stored of a model.
    """

    def __init__(self, plain: DropPath, device: torch.device) -> None:
        super().__init__(plain.drop_prob, plain.scale_by_keep)
        self.rate = torch.tensor(plain.drop_prob, device=device)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        one_each = (len(x), *[1] * (x.ndim - 1))
        kept = (torch.rand(one_each, device=x.device) >= self.rate).to(x.dtype)
        return x * (kept / (1 - self.rate) if self.scale_by_keep else kept)


class Branch(nn.Module):
    """One residual branch, x + DropPath(LayerScale(layer(norm(x)))), with its sites."""

    def __init__(
        self,
        norm: nn.Module,
        layer: nn.Module,
        layer_scale: nn.Module,
        drop_path: nn.Module,
        reads: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.norm, self.layer = norm, layer
        self.layer_scale, self.drop_path = layer_scale, drop_path
        self.reads = reads  # the linear layers whose input is the branch's
        self.before = Site()
        self.after = Site()
        self.parallel = Site()
        self.parallel_residual = Site()
        self.out = Site()

    @property
    def linears(self) -> dict[str, Linear]:
        """The branch's linear layers by name: qkv, proj of MHSA; fc1, fc2 of the MLP."""
        return {
            path.rpartition(".")[2]: module
            for path, module in self.layer.named_modules()
            if isinstance(module, Linear)
        }

    def linear(self, name: str) -> Linear:
        found = self.linears
        if name not in found:
            raise UsageError(f"this backbone has no layer {name} there; it has {', '.join(found)}.")
        return found[name]

    @property
    def drop_path_rate(self) -> float:
        return float(getattr(self.drop_path, "drop_prob", 0.0) or 0.0)

    def forward(self, x: Tensor) -> Tensor:
        u = normed = autocast(self.norm(x))  # (B, N, D), as everything below
        for module in self.before:
            u = module(u)
        y = self.drop_path(self.layer_scale(self.layer(u)))
        for module in self.after:
            y = module(y)
        for module in self.parallel:
            y = y + module(normed)
        for module in self.parallel_residual:
            y = y + module(x)
        x = x + y
        for module in self.out:
            x = module(x)
        return x


class Block(nn.Module):
    """A pre-norm transformer block: an attention branch and an MLP branch.

    `entry` is what its family puts in front of it (Swin: patch merging).
    """

    def __init__(
        self, attn: Branch, mlp: Branch, shape: BlockShape, entry: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.entry = entry or nn.Identity()
        self.tokens = Site()
        self.attn, self.mlp = attn, mlp
        self.side = Site()
        self.shape = shape

    @property
    def branches(self) -> tuple[Branch, Branch]:
        return self.attn, self.mlp

    def linear(self, name: str) -> Linear:
        """The linear layer of that name: qkv, proj, fc1 or fc2."""
        return self.attn.linear(name) if name in self.attn.linears else self.mlp.linear(name)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        x = self.entry(x)
        for module in self.tokens:
            x = module(x)
        y = self.mlp(self.attn(x))
        for module in self.side:
            y, state = module(x, y, state)
        return y, state


class Backbone(nn.Module):
    """An encoder whose blocks carry sites, and one linear head.

    The feature is the model's own: final norm, then [cls] or the pooling it was trained with.
    Weights must be loaded before: wrapping renames them. A family says what `embed` and `pool`
    are, which modules belong to pooling (`tail`), and what its blocks are.
    """

    HEAD: ClassVar[str] = "head"  # what timm calls the classifier

    def __init__(self, vit: Any) -> None:
        super().__init__()
        vit.reset_classifier(0)
        own = dict(vit.named_parameters())  # by timm's names, and the very same parameters
        adopt_layers(vit)
        self.vit: Any = vit
        self.blocks: tuple[Block, ...] = tuple(self.wrap())
        self.names: dict[str, nn.Parameter] = own
        self.features = Site()
        self.head: Any = nn.Identity()
        self.left_out: list[str] = []  # keys of the checkpoint that are no part of the encoder
        self.recompute = False  # in training, blocks' activations again in the backward pass
        self.replay = False  # in training, steps as a CUDA graph
        self.shape = self.measure()

    # -- what a family defines ----------------------------------------------------------------

    @staticmethod
    def refuses(model: nn.Module) -> str:
        """Why the family does not describe `model`; empty if it does."""
        raise NotImplementedError

    def wrap(self) -> Iterator[Block]:
        """Replace the blocks of `self.vit` by `Block`s; yields them in order."""
        raise NotImplementedError

    def embed(self, images: Tensor) -> Tensor:
        """Normalised images (B, 3, H, W) -> tokens of the first block."""
        raise NotImplementedError

    def pool(self, x: Tensor) -> Tensor:
        """Tokens of the last block -> features (B, D)."""
        raise NotImplementedError

    def tail(self) -> list[nn.Module]:
        """The modules that `pool` runs."""
        raise NotImplementedError

    def geometry(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Image size and patch size, in pixels."""
        raise NotImplementedError

    # -- what methods and the engine use ---------------------------------------------------------

    @property
    def family(self) -> str:
        return type(self).__name__

    @property
    def layers(self) -> dict[str, Layer]:
        """Every linear layer, convolution and LayerNorm of the backbone, by name."""
        attached = attached_modules(self.vit)
        own = ((n, m) for n, m in self.vit.named_modules() if m not in attached)
        return {name: module for name, module in own if isinstance(module, Layer)}

    @property
    def encoder(self) -> nn.Module:
        """What images pass: all of the model, unless it encodes something else too."""
        return cast(nn.Module, self.vit)

    @property
    def path(self) -> Sequence[nn.Module]:
        """The encoder's blocks, whether methods attach to them or not."""
        return self.blocks

    def prepare(self, num_classes: int, texts: Sequence[str] = ()) -> None:
        """Freeze everything and put a head: a fresh linear one, or one made from `texts`."""
        if texts:
            raise UsageError(f"{self.family} has no text tower that could make a head of texts.")
        self.requires_grad_(False)
        self.num_classes = num_classes
        self.put_head(self.shape.num_features)

    def put_head(self, width: int) -> None:
        """A fresh linear head on features of that width (PyTorch's default initialisation)."""
        self.head = nn.Linear(width, self.num_classes)

    def drop_path_off(self) -> None:
        """Make the frozen encoder deterministic during training."""
        for parent in list(self.vit.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, DropPath):
                    setattr(parent, name, nn.Identity())

    def store_frozen(self, dtype: torch.dtype) -> None:
        """Keep frozen weights as autocast to `dtype` would cast them anew in every step.

        Only where nothing but a matrix product or convolution can read them: not what a method
        has attached, not a layer with sites in use, whose weight a method may compute with, and
        not the head, which computes in full precision.
        """
        for module in set(self.modules()) - attached_modules(self) - set(self.head.modules()):
            used = len(getattr(module, "deltas", ())) or len(getattr(module, "weights", ()))
            plain = isinstance(module, (nn.Linear, nn.Conv2d)) and not used
            for parameter in module.parameters(recurse=False) if plain else ():
                if not parameter.requires_grad:
                    parameter.data = parameter.data.to(dtype)

    def compile_blocks(self) -> None:
        """Compile each block by itself: blocks that differ only in weights share the code.

        On a GPU training steps are replayed as well. Call it where the model lies on its device.
        """
        limits = torch._dynamo.config
        limits.recompile_limit = max(limits.recompile_limit, 4 * len(self.blocks))
        for block in self.blocks:
            device = next(block.parameters()).device
            for parent in list(block.modules()):
                for name, child in list(parent.named_children()):
                    if type(child) is DropPath and child.drop_prob:
                        setattr(parent, name, CompiledDropPath(child, device).train(child.training))
            block.compile()
            self.replay = device.type == "cuda"

    def use_fused_attention(self, fused: bool) -> None:
        """Fused kernel or explicit softmax(q k^T) v: the same formula, another rounding."""
        for module in (*self.vit.modules(), *self.encoder.modules()):
            if hasattr(module, "fused_attn"):
                module.fused_attn = fused

    def forward(self, x: Tensor, start: int = 0) -> Tensor:
        """Normalised images (B, 3, H, W) -> logits (B, classes).

        With `start`, `x` is what `encode(images, stop=start)` gave.
        """
        features = self.encode(x, start)
        # the head in full precision: bf16 logits tie, and ties go to the lower class
        with torch.autocast(features.device.type, enabled=False):
            return cast(Tensor, self.head(features.to(x.dtype)))

    def encode(self, x: Tensor, start: int = 0, stop: int | None = None) -> Tensor:
        """Run stages `start` to `stop` of: embedding, each block, norm and pooling.

        Images (B, 3, H, W) -> tokens (B, N, D) between the stages -> features (B, D).
        """
        state = None  # of side modules; none of them is in front of a start
        blocks = [partial(self.through, block) for block in self.path]
        stages: list[Callable[..., tuple[Tensor, Any]]] = [self._embed, *blocks, self._pool]
        for stage in stages[start:stop]:
            x, state = stage(x, state)
        return x

    def through(self, block: Any, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One block, with what its neighbours hand on beside the tokens."""
        if not isinstance(block, Block):  # without sites
            return block(x), state
        if self.recompute and self.training:  # replays the same random numbers
            return cast("tuple[Tensor, Any]", checkpoint(block, x, state, use_reentrant=False))
        return cast("tuple[Tensor, Any]", block(x, state))

    def _embed(self, images: Tensor, state: Any) -> tuple[Tensor, Any]:
        return self.embed(images), state

    def _pool(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        features = self.pool(x)
        for module in self.features:
            features = module(features, state)
        return features, state

    def frozen_stages(self) -> int:
        """How many stages at the front compute the same of an image in every epoch.

        They train nothing, draw no random numbers in training, and no method has attached to them.
        """
        tail = [*self.tail(), self.features]
        behind = {module for part in (*self.path, *tail) for module in part.modules()}
        front = [module for module in self.encoder.modules() if module not in behind]
        stages = [front, *([*part.modules()] for part in self.path)]
        stages.append([module for part in tail for module in part.modules()])
        count = 0
        for modules in stages:
            own = [p for module in modules for p in module.parameters(recurse=False)]
            if any(p.requires_grad for p in own) or any(map(changes, modules)):
                break
            count += 1
        return count

    def merge(self) -> None:
        """Fold everything attached into the backbone's own weights, in place.

        What is in `weights` is applied; what is in `deltas` and `before` is taken for a linear
        map and its matrix read off the unit vectors. Raises UsageError, and leaves a model that
        must not be used further, where something is attached that no weight can take up.
        """
        for name, layer in self.layers.items():
            weight, bias = layer.effective()
            layer.weights = Site()
            for delta in getattr(layer, "deltas", ()):
                matrix, constant = linear_map(delta, weight.shape[1])
                weight, bias = weight + matrix, add(bias, constant)
            if isinstance(layer, Linear):
                layer.deltas = Site()
            put(layer, weight, bias, name)
        for number, block in enumerate(self.blocks):
            for branch in block.branches:
                for module in reversed(list(branch.before)):
                    matrix, constant = linear_map(module, block.shape.dim)
                    for name in branch.reads:
                        layer = branch.linear(name)
                        weight = layer.weight.double()
                        bias = add(layer.bias, weight @ constant)
                        put(layer, weight @ matrix, bias, f"{name} of block {number}")
                branch.before = Site()
        left = [n for n, m in self.named_modules() if isinstance(m, Site) and len(m)]
        if left:
            raise UsageError(f"what is attached at {left[0]} cannot be merged into a weight.")

    def export(self) -> dict[str, Tensor]:
        """The weights by timm's names, head included; nothing may be left attached."""
        state = {name: parameter.detach() for name, parameter in self.names.items()}
        if isinstance(self.head, nn.Linear):
            state |= {f"{self.HEAD}.{n}": p.detach() for n, p in self.head.named_parameters()}
        return state

    def measure(self) -> Shape:
        image_size, patch_size = self.geometry()
        layers = [
            LayerShape(
                name,
                "norm" if isinstance(m, Norm) else "conv" if isinstance(m, Conv) else "linear",
                m.weight[0].numel(),
                len(m.weight),
                m.bias is not None,
            )
            for name, m in self.layers.items()
        ]
        return Shape(
            family=self.family,
            image_size=image_size,
            patch_size=patch_size,
            blocks=tuple(block.shape for block in self.blocks),
            layers=tuple(layers),
            num_features=self.vit.num_features,
            num_parameters=sum(p.numel() for p in self.vit.parameters()),
            num_biases=sum(bias.numel() for bias in biases(self.vit)),
            num_norms=sum(p.numel() for norm in norms(self.vit) for p in norm.parameters()),
        )


def linear_map(module: nn.Module, inputs: int) -> tuple[Tensor, Tensor]:
    """(M, c) with module(x) = M x + c in evaluation mode, in float64, read off the unit vectors."""
    module = copy.deepcopy(module).eval()
    parameter = next(module.parameters())
    unit = torch.eye(inputs, dtype=parameter.dtype, device=parameter.device)
    with torch.no_grad():
        constant = module(torch.zeros_like(unit)[None])[0, 0].double()
        return (module(unit[None])[0].double() - constant).T, constant


def add(bias: Tensor | None, constant: Tensor) -> Tensor | None:
    if bias is None and not constant.any():
        return None
    return constant if bias is None else bias.double() + constant


def put(layer: Layer, weight: Tensor, bias: Tensor | None, name: str) -> None:
    if bias is not None and layer.bias is None:
        raise UsageError(f"{name} has no bias that could take up the constant part.")
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)


def autocast(x: Tensor) -> Tensor:
    """Cast once what autocast would cast again for each of its readers."""
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def sites(model: nn.Module) -> list[Site]:
    return [module for module in model.modules() if isinstance(module, Site)]


def attached_modules(model: nn.Module) -> set[nn.Module]:
    """What methods have attached, the sites and everything in them."""
    return {module for site in sites(model) for module in site.modules()}


def changes(module: nn.Module) -> bool:
    """Whether `module` may give another output for the same input, or is a site in use."""
    if isinstance(module, Site):
        return len(module) > 0
    if isinstance(module, DropPath):
        return bool(module.drop_prob)
    if isinstance(module, PatchDropout):
        return bool(module.prob)
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0


def biases(model: nn.Module) -> Iterator[nn.Parameter]:
    """Every bias vector of every module."""
    for module in model.modules():
        for name in ("bias", "q_bias", "k_bias", "v_bias"):
            bias = getattr(module, name, None)
            if isinstance(bias, nn.Parameter):
                yield bias


def norms(model: nn.Module) -> Iterator[nn.LayerNorm]:
    """Every LayerNorm."""
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            yield module


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Name -> parameter, of everything that trains (the head included)."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def count_trained(model: nn.Module) -> tuple[int, int]:
    """Elements of everything that trains: without the head, and of the head."""
    trained = trained_parameters(model)
    head = sum(p.numel() for name, p in trained.items() if name.startswith("head."))
    return sum(p.numel() for p in trained.values()) - head, head


def stored_tensors(model: nn.Module) -> dict[str, Tensor]:
    """What must be kept to rebuild the adapted model: what trains, and all that is attached."""
    kept: dict[str, Tensor] = dict(trained_parameters(model))
    names = {id(t): name for name, t in (*model.named_parameters(), *model.named_buffers())}
    for site in sites(model):
        kept |= {names[id(t)]: t for t in (*site.parameters(), *site.buffers())}
    return kept


def load_stored(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put stored tensors back; names and shapes must match exactly."""
    own = stored_tensors(model)
    odd = sorted(own.keys() ^ tensors.keys())
    odd = odd or [n for n, tensor in own.items() if tensor.shape != tensors[n].shape]
    if odd:
        raise UsageError(f"the stored weights are of another model: {', '.join(odd[:3])} differ.")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(tensors[name])
