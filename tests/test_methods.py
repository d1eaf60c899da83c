"""Every method: the contract, training mode, counts and refusals, from the tables of `proofs/`."""

from __future__ import annotations

from typing import Any

import proofs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from proofs.common import (
    CLASSES,
    TINY,
    Times,
    adapt,
    added,
    attached,
    base,
    batches,
    images,
    perturb,
    quick_gelu,
    rates,
    tokens,
)
from timm.layers import SwiGLU, SwiGLUPacked
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from petlbench.backbone import Backbone, trained_parameters
from petlbench.backbones.vit import ViT
from petlbench.check import MODELS
from petlbench.errors import UsageError
from petlbench.method import builtin, load

DROPOUT = {m: p.DROPOUT for m, p in proofs.PROOFS.items() if hasattr(p, "DROPOUT")}
SIZE = {m: p.SIZE for m, p in proofs.PROOFS.items() if hasattr(p, "SIZE")}


# -- the contract, on every kind of backbone -------------------------------------------------------


@pytest.mark.parametrize("method", sorted(builtin()))
def test_contract(method: str) -> None:
    """Every claim holds on every tiny model, or the method refuses the model with a reason."""
    findings = proofs.findings(method)
    assert [f for f in findings if not f.holds] == []
    assert {f.model for f in findings} == set(MODELS)
    assert all(not f.refused for f in findings if f.model == "[cls] token")


ODD: dict[str, dict[str, Any]] = {
    "gated MLP": {"mlp_layer": SwiGLU, "act_layer": nn.SiLU},
    "packed gated MLP, no qkv bias": {
        "mlp_layer": SwiGLUPacked,
        "act_layer": nn.SiLU,
        "qkv_bias": False,
    },
    "normalised q and k, no bias anywhere": {
        "qk_norm": True,
        "qkv_bias": False,
        "proj_bias": False,
    },
}


@pytest.mark.parametrize("model", ODD)
@pytest.mark.parametrize("method", sorted(builtin()))
def test_other_insides(method: str, model: str) -> None:
    """Handled, with the declared count and a merge that changes nothing, or refused in words."""
    torch.manual_seed(0)
    backbone = ViT(VisionTransformer(**TINY | ODD[model]))
    backbone.prepare(CLASSES)
    built = load(method)()
    try:
        built.require(backbone.shape)
    except UsageError:
        return
    names = {name for name, _ in backbone.named_parameters()}
    built.attach(backbone)
    built.calibrate(backbone, batches)
    assert built.num_trainable(backbone.shape) == sum(p.numel() for p in added(backbone).values())
    perturb_trained(backbone)
    backbone.double().eval()
    expected = backbone(images())
    expected.sin().sum().backward()
    assert [n for n, p in trained_parameters(backbone).items() if p.grad is None] == []
    if not built.merges:
        return
    try:
        with torch.no_grad():
            built.merge(backbone)
    except UsageError as error:  # no bias that could take up a constant
        assert "no bias" in str(error)
        return
    assert {name for name, _ in backbone.named_parameters()} == names
    torch.testing.assert_close(backbone(images()), expected, rtol=1e-7, atol=1e-7)


def perturb_trained(backbone: Backbone) -> None:
    with torch.no_grad():
        for parameter in trained_parameters(backbone).values():
            parameter.add_(0.1 * torch.randn_like(parameter))


# -- training mode -------------------------------------------------------------------------------


# Prompts, probes and side features need a fixed encoder.
NO_DROP_PATH = {m for m, p in proofs.PROOFS.items() if getattr(p, "FIXED_ENCODER", False)}


@pytest.mark.parametrize("method", sorted(builtin()))
def test_who_switches_drop_path_off(method: str) -> None:
    """Prompts need a fixed encoder, a probe fixed features; every other method keeps the ramp."""
    backbone = adapt(method, drop_path_rate=0.5)
    if method in NO_DROP_PATH:
        assert rates(backbone) == [0.0] * 4
        for module in backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        backbone.train()
        trained = backbone(images())
        assert torch.equal(trained, backbone.eval()(images()))
    else:
        assert rates(backbone) == pytest.approx([0.0, 0.0, 0.5, 0.5])


@pytest.mark.parametrize("method", DROPOUT)
def test_dropout_rate(method: str) -> None:
    """The documented default, and the setting reaches every module."""
    for config, rate in (({}, DROPOUT[method]), ({"dropout": 0.25}, 0.25)):
        found = [module.dropout.p for module in attached(adapt(method, config))]
        assert found and set(found) == {rate}


PLACES = ["adapter", "adaptformer", "convpass", "convpass_attn", "lora", "vpt", "vpt_shallow"]


@pytest.mark.parametrize("method", PLACES)
def test_dropout_place(method: str) -> None:
    """A dropout that multiplies by three acts where the formula has it, and only there."""
    backbone = adapt(method, reg_tokens=2)
    perturb(backbone)
    module = attached(backbone)[0]
    module.dropout = Times()
    x = tokens(prefix=3)
    if method in ("vpt", "vpt_shallow"):
        prompts = 3 * module.prompts.expand(len(x), -1, -1)
        expected = torch.cat([x[:, :3], prompts, x[:, 3:]], dim=1)
    elif method == "adapter":
        expected = x + module.up(3 * quick_gelu(module.down(x)))
    elif method == "adaptformer":
        expected = 0.1 * module.up(3 * torch.relu(module.down(x)))
    elif method == "lora":
        q, v = 3 * x @ module.a_q.T @ module.b_q.T, 3 * x @ module.a_v.T @ module.b_v.T
        expected = torch.cat([q, torch.zeros_like(q), v], dim=-1)
    else:  # the convolution itself is for test_reference.py
        activated: list[Tensor] = []
        module.dropout.register_forward_pre_hook(lambda _, inputs: activated.append(inputs[0]))
        module(x)
        convolved = quick_gelu(module.down(x))[:, :3] @ module.conv.weight[:, :, 1, 1].T
        torch.testing.assert_close(activated[0][:, :3], quick_gelu(convolved + module.conv.bias))
        expected = module.up(3 * activated[0])
    torch.testing.assert_close(module(x), expected)


@pytest.mark.parametrize(
    ("method", "config"),
    [
        *((method, {}) for method in sorted(builtin())),
        ("adapter", {"init": "zero_up"}),
        ("convpass", {"init": "identity"}),
        ("convpass_attn", {"init": "identity"}),
    ],
)
def test_gradients_reach_everything(method: str, config: dict[str, Any]) -> None:
    """Within two steps: a zero factor may silence the other factor for one step, not for two."""
    backbone = adapt(method, config, init_values=0.1, reg_tokens=2).train()
    parameters = trained_parameters(backbone)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3)
    labels = torch.arange(8) % CLASSES
    reached = set()
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(backbone(images(8)), labels).backward()
        reached |= {name for name, p in parameters.items() if p.grad is not None and p.grad.any()}
        optimizer.step()
    assert parameters.keys() - reached == set()


# -- counts --------------------------------------------------------------------------------------


def declared_and_measured(method: str, config: dict[str, Any], backbone: Backbone) -> list[int]:
    built = load(method)(**config)
    with torch.device("meta"):
        built.attach(backbone)
    return [
        built.num_trainable(backbone.shape),
        sum(parameter.numel() for parameter in added(backbone).values()),
    ]


@pytest.mark.parametrize(("method", "config", "expected"), proofs.every("COUNTS"))
def test_published_counts(method: str, config: dict[str, Any], expected: int) -> None:
    """On ViT-B/16, without the head."""
    assert declared_and_measured(method, config, base()) == [expected, expected]


@pytest.mark.parametrize("method", sorted(builtin()))
def test_every_method_has_a_proof(method: str) -> None:
    assert proofs.PROOFS[method].COUNTS


@st.composite
def tiny_models(draw: st.DrawFn) -> dict[str, Any]:
    heads = draw(st.integers(1, 3))
    patch = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    grid = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    average = draw(st.booleans())
    return {
        "img_size": (patch[0] * grid[0], patch[1] * grid[1]),
        "patch_size": patch,
        "embed_dim": heads * draw(st.integers(1, 4)),
        "depth": draw(st.integers(1, 3)),
        "num_heads": heads,
        "mlp_ratio": draw(st.sampled_from([1.0, 2.5, 4.0])),
        "reg_tokens": draw(st.integers(0, 4)),
        "init_values": draw(st.sampled_from([None, 0.1])),
        "qkv_bias": draw(st.booleans()),
        "pre_norm": draw(st.booleans()),
        "global_pool": "avg" if average else "token",
        "class_token": not average or draw(st.booleans()),
    }


@pytest.mark.parametrize("method", sorted(builtin()))
@given(model=tiny_models(), size=st.integers(1, 20))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_declared_count_is_measured(method: str, model: dict[str, Any], size: int) -> None:
    with torch.device("meta"):
        backbone = ViT(VisionTransformer(**model))
        backbone.prepare(CLASSES)
    config = {SIZE[method]: size} if method in SIZE else {}
    try:
        load(method)(**config).require(backbone.shape)
    except UsageError:
        return
    declared, measured = declared_and_measured(method, config, backbone)
    assert declared == measured


# -- refusals ------------------------------------------------------------------------------------

NAN, INFINITY = float("nan"), float("inf")
WIDTHS = (
    (0, ">= 1"),
    (-3, ">= 1"),
    (True, "of type int"),
    (2.0, "of type int"),
    ("8", "of type int"),
    (None, "of type int"),
)
RATES = (
    (1.0, ">= 0 and < 1"),
    (1, ">= 0 and < 1"),
    (-0.1, ">= 0 and < 1"),
    (NAN, "finite"),
    (False, "of type float"),
    ("0.1", "of type float"),
)
SCALES = ((NAN, "finite"), (INFINITY, "finite"), ("1", "of type float"))
BAD: list[tuple[str, str, object, str]] = [
    *((method, SIZE[method], *case) for method in SIZE for case in WIDTHS),
    *((method, "dropout", *case) for method in DROPOUT for case in RATES),
    *(
        (method, "scale", *case)
        for method in builtin()
        if hasattr(load(method), "scale")
        for case in SCALES
    ),
    *proofs.every("BAD"),
]


@pytest.mark.parametrize(("method", "field", "value", "allowed"), BAD)
def test_bad_settings_are_refused(method: str, field: str, value: object, allowed: str) -> None:
    """The message names the method, the field, the value and what is allowed."""
    with pytest.raises(UsageError) as caught:
        load(method)(**{field: value})
    message = str(caught.value)
    assert f"{method}.{field} = {value!r}" in message and allowed in message


@pytest.mark.parametrize("method", DROPOUT)
def test_whole_numbers_are_numbers(method: str) -> None:
    """`dropout=0` is 0.0: one setting must not have two spellings in the records."""
    built = load(method)(dropout=0)
    assert built == load(method)(dropout=0.0) and "dropout=0.0" in repr(built)
