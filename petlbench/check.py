"""Is a method sound? The contract, measured in seconds on tiny models."""

from __future__ import annotations

import inspect
import json
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timm.layers
import torch
from safetensors.torch import load_file, save_file
from timm.models.convnext import ConvNeXt
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from petlbench.backbone import (
    Backbone,
    count_trained,
    load_stored,
    stored_tensors,
    trained_parameters,
)
from petlbench.backbones import adopt
from petlbench.errors import RunError, UsageError
from petlbench.method import Batches, Method

CLASSES = 5
ROUNDING = 1e-5  # of fp32, on logits of order one

# Each differs from the first in what methods tend to take for granted.
VIT: dict[str, Any] = dict(embed_dim=32, depth=3, num_heads=2)
MODELS: dict[str, Callable[[], nn.Module]] = {
    "[cls] token": partial(VisionTransformer, **VIT, img_size=32, patch_size=8),
    "registers and LayerScale": partial(
        VisionTransformer, **VIT, img_size=32, patch_size=8, reg_tokens=4, init_values=0.1
    ),
    "other patch and image size": partial(
        VisionTransformer, **VIT, img_size=(36, 24), patch_size=6
    ),
    "mean pooling, no [cls]": partial(
        VisionTransformer,
        **VIT,
        img_size=16,
        patch_size=4,
        class_token=False,
        global_pool="avg",
        fc_norm=True,
    ),
    "CLIP image tower": partial(
        VisionTransformer,
        **VIT,
        img_size=32,
        patch_size=8,
        pre_norm=True,
        act_layer=timm.layers.QuickGELU,
    ),
    "Swin": partial(
        SwinTransformer,
        img_size=32,
        patch_size=2,
        embed_dim=16,
        depths=(2, 2),
        num_heads=(2, 4),
        window_size=4,
    ),
    "ConvNeXt": partial(ConvNeXt, depths=(1, 1, 1, 1), dims=(8, 8, 16, 32)),
}


@dataclass(frozen=True)
class Finding:
    """One claim of the contract on one tiny model, and whether it was seen to hold."""

    model: str
    claim: str
    holds: bool
    detail: str = ""
    refused: bool = False  # the method does not fit the model, and says why


def check(method: Method) -> Iterator[Finding]:
    """Measure every claim on every tiny model; a claim that raises does not hold.

    Where the method cannot even attach and predict, nothing else is tried.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more only wait for each other on models this small
    try:
        yield from _findings(method)
    finally:
        torch.set_num_threads(threads)


def _findings(method: Method) -> Iterator[Finding]:
    for name in MODELS:
        try:
            method.require(tiny(name).shape)
        except UsageError as error:
            yield Finding(name, "fits", True, str(error), refused=True)
            continue
        for claim, test in CLAIMS.items():
            try:
                problem = test(method, name)
            except Exception as error:
                problem = f"{type(error).__name__}: {error} ({_place(error, method)})"
            yield Finding(name, claim, not problem, problem)
            if problem and test is _shape:
                break


def count_on_vit_b16(method: Method) -> int:
    """Trainable parameters on ViT-B/16 without the head; raises where measured != declared."""
    with torch.device("meta"):
        backbone = adopt(VisionTransformer())
        backbone.prepare(CLASSES)
        method.attach(backbone)
    measured, _ = count_trained(backbone)
    if measured != (declared := method.num_trainable(backbone.shape)):
        raise RunError(f"on ViT-B/16: {measured:,} trainable, {declared:,} declared")
    return measured


def _place(error: Exception, method: Method) -> str:
    """The last line of the method's own file that led to the error."""
    file = inspect.getfile(type(method))
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f"{Path(file).name}, line {lines[-1]}" if lines else "outside the method's file"


def tiny(name: str) -> Backbone:
    """A seeded random model, 2 to 4 blocks of width 16 or 32, frozen, with a fresh head."""
    torch.manual_seed(0)
    model = MODELS[name](num_classes=0, drop_path_rate=0.1)  # type: ignore[call-arg]
    for parameter in model.parameters():  # no zeros or ones behind which an error could hide
        torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    backbone = adopt(model)
    backbone.prepare(CLASSES)
    return backbone


def adapted(method: Method, name: str) -> Backbone:
    backbone = tiny(name)
    method.attach(backbone)
    method.calibrate(backbone, batches(backbone))
    return backbone


def moved(backbone: Backbone) -> Backbone:
    """With everything trainable away from where it starts, as training would leave it."""
    with torch.no_grad():
        for parameter in trained_parameters(backbone).values():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return backbone


def images(backbone: Backbone, count: int = 8, seed: int = 1) -> Tensor:
    height, width = backbone.shape.image_size
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


def batches(backbone: Backbone) -> Batches:
    """Twenty random training images, for methods that look at some."""
    pixels, labels = images(backbone, 20, seed=2), torch.arange(20) % CLASSES
    return lambda size: zip(torch.split(pixels, size), torch.split(labels, size), strict=True)


def _shape(method: Method, name: str) -> str:
    backbone = adapted(method, name)
    shape = tuple(backbone(images(backbone)).shape)
    return "" if shape == (8, CLASSES) else f"logits have shape {shape}, not (8, {CLASSES})"


def _identity(method: Method, name: str) -> str:
    plain, backbone = tiny(name).eval(), adapted(method, name).eval()
    with torch.no_grad():
        gap = (plain(images(plain)) - backbone(images(plain))).abs().max().item()
    if method.identity_at_init():
        same = gap < ROUNDING
        return "" if same else f"declared an identity, but logits differ by up to {gap:.2g}"
    return "" if gap > 0 else "declared no identity, but the logits are those of the backbone"


def _count(method: Method, name: str) -> str:
    backbone = adapted(method, name)
    measured, _ = count_trained(backbone)
    declared = method.num_trainable(backbone.shape)
    return "" if measured == declared else f"{measured:,} trainable, {declared:,} declared"


def _training(method: Method, name: str) -> str:
    backbone = tiny(name).train()
    before = tensors(backbone)
    method.attach(backbone)
    method.calibrate(backbone, batches(backbone))
    backbone.train()
    before = {**tensors(backbone), **before}  # attach may add, and not edit
    trained = trained_parameters(backbone)
    if not trained.keys() >= {"head.weight", "head.bias"}:
        return "the head was frozen; it must train"
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0)
    labels = torch.arange(8) % CLASSES
    for _ in range(2):  # one step is not enough behind a layer that starts at zero
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(backbone(images(backbone)), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    after = tensors(backbone)
    # NaN is never equal to itself; torch.equal would call it moved
    broken = [n for n in trained if not torch.isfinite(after[n]).all()]
    moved = {n for n in after if not torch.equal(before[n], after[n])}
    stuck, strayed = sorted(trained.keys() - moved), sorted(moved - trained.keys())
    told = [
        f"{text}: {', '.join(names[:3])}"
        for text, names in (
            ("did not move", stuck),
            ("frozen, but changed", strayed),
            ("not finite", broken),
        )
        if names
    ]
    return "; ".join(told)


def tensors(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, each once however often it is shared."""
    return {n: t.detach().clone() for n, t in (*model.named_parameters(), *model.named_buffers())}


def _configuration(method: Method, name: str) -> str:
    stored = json.loads(json.dumps(asdict(method)))
    return "" if type(method)(**stored) == method else f"{stored} gives another method"


def _weights(method: Method, name: str) -> str:
    backbone = moved(adapted(method, name))
    stored = {n: p.detach().contiguous() for n, p in stored_tensors(backbone).items()}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "weights.safetensors"
        save_file(stored, file)
        loaded = load_file(file)
    restored = tiny(name)
    method.attach(restored)  # training images are not there any more
    load_stored(restored, loaded)
    with torch.no_grad():
        batch = images(backbone)
        same = torch.equal(backbone.eval()(batch), restored.eval()(batch))
    return "" if same else "the reloaded model predicts something else"


def _merging(method: Method, name: str) -> str:
    plain, backbone = tiny(name), moved(adapted(method, name)).eval()
    with torch.no_grad():
        expected = backbone(images(backbone))
        try:
            method.merge(backbone)
        except UsageError as error:
            return f"declared to merge, but {error}" if method.merges else ""
        if not method.merges:
            return "declared not to merge, but it does"
        gap = ((backbone(images(backbone)) - expected).abs().max() / expected.abs().max()).item()
    names = {n for n, _ in plain.named_parameters()} ^ {n for n, _ in backbone.named_parameters()}
    if names:
        return f"parameters are not the backbone's: {', '.join(sorted(names)[:3])}"
    return "" if gap < ROUNDING else f"merged, the logits differ by {gap:.2g} of the largest"


CLAIMS: dict[str, Callable[[Method, str], str]] = {
    "attaches, and logits have the right shape": _shape,
    "starts as what `identity_at_init` declares": _identity,
    "trains as many parameters as declared": _count,
    "two AdamW steps move every trainable tensor and no frozen one": _training,
    "merges into the backbone's weights, or says that it does not": _merging,
    "its settings survive JSON": _configuration,
    "its trained weights survive disk": _weights,
}
