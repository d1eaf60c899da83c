"""What a method's facts say beyond its formula: training, initialisation, counts, refusals."""

from __future__ import annotations

import math
from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from petlbench.backbone import Backbone, Branch, trained_parameters
from petlbench.errors import UsageError
from petlbench.method import builtin, load

CLASSES = 3
TINY: dict[str, Any] = {
    "img_size": (12, 8),
    "patch_size": 4,
    "embed_dim": 12,
    "depth": 2,
    "num_heads": 2,
    "mlp_ratio": 2.0,
}


def adapt(method: str, config: dict[str, Any] | None = None, **options: Any) -> Backbone:
    """A tiny backbone, prepared and adapted, in float64."""
    torch.manual_seed(0)
    backbone = Backbone(VisionTransformer(**TINY | options))
    backbone.prepare(CLASSES)
    load(method)(**(config or {})).attach(backbone)
    return backbone.double()


def perturb(module: nn.Module) -> None:
    """Away from zeros and ones, so that every term counts."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))


def images(number: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, 3, 12, 8, generator=generator, dtype=torch.float64)


def tokens(number: int = 4, prefix: int = 1) -> Tensor:
    """A residual stream of the tiny backbone: (B, N, D)."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(number, prefix + 6, 12, generator=generator, dtype=torch.float64)


def last_branches(backbone: Backbone) -> tuple[Branch, Branch]:
    return list(backbone.blocks)[-1].branches


def rates(backbone: Backbone) -> list[float]:
    return [branch.drop_path_rate for block in backbone.blocks for branch in block.branches]


def added(backbone: Backbone) -> dict[str, nn.Parameter]:
    return {n: p for n, p in trained_parameters(backbone).items() if not n.startswith("head.")}


def quick_gelu(u: Tensor) -> Tensor:
    return u * torch.sigmoid(1.702 * u)


class Times(nn.Module):
    """Stands in for a dropout: shows where it acts."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * x


# -- training mode: drop-path --------------------------------------------------------------------


@pytest.mark.parametrize("which", [0, 1], ids=["attn", "mlp"])
def test_convpass_draws_its_own_drop_path(which: int) -> None:
    """x + m y / keep + s m' C / keep: four outcomes, as likely as independent masks make them."""
    config = {"dropout": 0.0, "scale": 10.0}
    backbone = adapt("convpass", config, drop_path_rate=0.4, init_values=0.1)
    branch = last_branches(backbone)[which]
    perturb(branch)
    number, keep = 1000, 0.6
    x = tokens(1)
    branch.eval()
    bypass = branch.parallel[0](branch.norm(x))
    y = branch(x) - x - bypass
    branch.train()
    torch.manual_seed(3)
    outputs = branch(x.expand(number, -1, -1)) - x
    seen = 0
    for mask in (0, 1):
        for bypass_mask in (0, 1):
            outcome = mask * y / keep + bypass_mask * bypass / keep
            hits = int(torch.isclose(outputs, outcome).all(dim=2).all(dim=1).sum())
            probability = math.prod(keep if kept else 1 - keep for kept in (mask, bypass_mask))
            deviation = math.sqrt(number * probability * (1 - probability))
            assert abs(hits - number * probability) < 5 * deviation
            seen += hits
    assert seen == number


@pytest.mark.parametrize("method", ["convpass", "convpass_attn"])
def test_convpass_follows_the_ramp(method: str) -> None:
    """The bypass drops at the rate of its own block: linear from 0 to the backbone's rate."""
    backbone = adapt(method, drop_path_rate=0.3, depth=4)
    for block, rate in zip(backbone.blocks, (0.0, 0.1, 0.2, 0.3), strict=True):
        bypasses = [module for branch in block.branches for module in branch.parallel]
        assert len(bypasses) == (2 if method == "convpass" else 1)
        for bypass in bypasses:
            assert cast(Any, bypass.drop_path).drop_prob == pytest.approx(rate)
    assert len(last_branches(backbone)[0].parallel) == 1  # attn only: at MHSA, not at the MLP


def test_convpass_is_outside_layer_scale() -> None:
    """LayerScale at zero silences the branch, not its bypass."""
    branch = last_branches(adapt("convpass", {"scale": 10.0}, init_values=0.1))[0].eval()
    perturb(branch)
    nn.init.zeros_(cast(Any, branch.layer_scale).gamma)
    x = tokens()
    torch.testing.assert_close(branch(x), x + branch.parallel[0](branch.norm(x)))
    assert not torch.allclose(branch(x), x)


def dropped(method: str, config: dict[str, Any]) -> Branch:
    """The MLP branch of the last block in training mode, its drop-path certain to drop."""
    backbone = adapt(method, {"dropout": 0.0} | config, drop_path_rate=0.4, init_values=0.1)
    branch = last_branches(backbone)[1]
    perturb(branch)
    cast(Any, branch.drop_path).drop_prob = 1.0
    return branch.train()


def test_adapter_acts_on_a_dropped_output() -> None:
    """Outside drop-path: what the adapter makes of zero still reaches the stream."""
    branch = dropped("adapter", {})
    adapter, x = cast(Any, branch.after[0]), tokens()
    of_zero = quick_gelu(adapter.down.bias) @ adapter.up.weight.T + adapter.up.bias
    torch.testing.assert_close(branch(x), x + of_zero)
    assert of_zero.abs().max() > 0.01


def test_adaptformer_survives_drop_path() -> None:
    """Outside drop-path and LayerScale, reading x before LN2."""
    branch = dropped("adaptformer", {"scale": 10.0})
    bottleneck, x = cast(Any, branch.parallel_residual[0]), tokens()
    expected = x + 10 * bottleneck.up(torch.relu(bottleneck.down(x)))
    torch.testing.assert_close(branch(x), expected)
    of_normed = x + 10 * bottleneck.up(torch.relu(bottleneck.down(branch.norm(x))))
    assert not torch.allclose(branch(x), of_normed)


@pytest.mark.parametrize("method", sorted(builtin()))
def test_who_switches_drop_path_off(method: str) -> None:
    """Prompts need a fixed encoder, a probe fixed features; every other method keeps the ramp."""
    backbone = adapt(method, drop_path_rate=0.5)
    if method in ("vpt", "vpt_shallow", "linear"):
        assert rates(backbone) == [0.0] * 4
        for module in backbone.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        backbone.train()
        trained = backbone(images())
        assert torch.equal(trained, backbone.eval()(images()))
    else:
        assert rates(backbone) == pytest.approx([0.0, 0.0, 0.5, 0.5])


# -- training mode: dropout ----------------------------------------------------------------------

DROPOUT = {
    "vpt": 0.1,
    "vpt_shallow": 0.0,
    "adapter": 0.1,
    "adaptformer": 0.1,
    "lora": 0.0,
    "convpass": 0.1,
    "convpass_attn": 0.1,
}


def attached(backbone: Backbone) -> list[Any]:
    """The modules, attached to any site, that have a dropout of their own."""
    return [
        module
        for name, module in backbone.named_modules()
        if isinstance(getattr(module, "dropout", None), nn.Dropout)
        and any(part.isdigit() for part in name.split(".")[3:])
    ]


@pytest.mark.parametrize("method", DROPOUT)
def test_dropout_rate(method: str) -> None:
    """The documented default, and the setting reaches every module."""
    modules = {"vpt_shallow": 1, "convpass": 4}.get(method, 2)
    for config, rate in (({}, DROPOUT[method]), ({"dropout": 0.25}, 0.25)):
        assert [m.dropout.p for m in attached(adapt(method, config))] == [rate] * modules


@pytest.mark.parametrize("method", DROPOUT)
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


def test_vpt_drops_per_sample() -> None:
    """Each image of a batch has its own mask."""
    module = attached(adapt("vpt", {"tokens": 5, "dropout": 0.5}))[0].train()
    prompts = module(tokens(16))[:, 1:6]
    assert len({tuple((sample != 0).flatten().tolist()) for sample in prompts}) == 16


# -- initialisation at the width of ViT-B/16 -----------------------------------------------------


def base() -> Backbone:
    """ViT-B/16 without storage: what a method attaches to it is real."""
    with torch.device("meta"):
        backbone = Backbone(VisionTransformer())
        backbone.prepare(CLASSES)
    return backbone


def initial(method: str, **config: Any) -> dict[str, list[Tensor]]:
    """`down.weight`, `a_q` and the like -> the initial tensors of all blocks."""
    torch.manual_seed(0)
    backbone = base()
    load(method)(**config).attach(backbone)
    found: dict[str, list[Tensor]] = {}
    for name, parameter in added(backbone).items():
        short = ".".join(part for part in name.split(".")[-2:] if not part.isdigit())
        found.setdefault(short, []).append(parameter.detach())
    return found


def assert_uniform(tensors: list[Tensor], bound: float) -> None:
    """Uniform on (-bound, bound): never beyond, all the way to it, with its standard deviation."""
    values = torch.cat([tensor.flatten() for tensor in tensors])
    assert 0.99 * bound < values.abs().max() <= bound * (1 + 1e-6)
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert abs(values.mean().item()) < 5 * bound / math.sqrt(3 * len(values))
    assert not torch.equal(tensors[0], tensors[-1]) or len(tensors) == 1


def assert_zero(tensors: list[Tensor]) -> None:
    assert not any(tensor.any() for tensor in tensors)


@pytest.mark.parametrize("init", ["xavier", "zero_up"])
def test_adapter_initialisation(init: str) -> None:
    found = initial("adapter", init=init, hidden=16)
    xavier = math.sqrt(6 / (768 + 16))
    assert_uniform(found["down.weight"], xavier)
    biases = torch.cat(found["down.bias"])
    assert biases.std().item() == pytest.approx(1e-6, rel=0.3) and biases.abs().max() < 1e-5
    if init == "zero_up":
        assert_zero(found["up.weight"] + found["up.bias"])
    else:
        assert_uniform(found["up.weight"], xavier)
        assert torch.cat(found["up.bias"]).std().item() == pytest.approx(1e-6, rel=0.1)


def test_adaptformer_initialisation() -> None:
    found = initial("adaptformer")
    assert_uniform(found["down.weight"], 768**-0.5)  # Kaiming, a = sqrt(5): sqrt(6 / (6 * 768))
    assert_zero(found["down.bias"] + found["up.weight"] + found["up.bias"])


def test_lora_initialisation() -> None:
    found = initial("lora")
    for a in ("a_q", "a_v"):
        assert_uniform(found[a], 768**-0.5)
    assert_zero(found["b_q"] + found["b_v"])
    assert not torch.equal(found["a_q"][0], found["a_v"][0])  # q and v do not share A
    assert found["a_q"][0].shape == (8, 768) and found["b_q"][0].shape == (768, 8)


@pytest.mark.parametrize("method", ["convpass", "convpass_attn"])
@pytest.mark.parametrize("init", ["xavier", "identity"])
def test_convpass_initialisation(method: str, init: str) -> None:
    found = initial(method, init=init)
    assert_uniform(found["down.weight"], math.sqrt(6 / (768 + 8)))
    assert_zero(found["down.bias"] + found["conv.bias"] + found["up.weight"] + found["up.bias"])
    if init == "xavier":
        assert_uniform(found["conv.weight"], math.sqrt(6 / (9 * 8 + 9 * 8)))
        return
    for weight in found["conv.weight"]:
        assert torch.equal(weight[:, :, 1, 1], torch.eye(8))
        assert weight.abs().sum() == 8  # the eight other taps are zero


@pytest.mark.parametrize("method", ["vpt", "vpt_shallow"])
def test_vpt_initialisation(method: str) -> None:
    found = initial(method, tokens=50)
    prompts = found["prompts"]
    assert len(prompts) == (12 if method == "vpt" else 1)
    assert_uniform(prompts, 0.0625)  # sqrt(6 / (3 * 16 * 16 + 768))


def test_vpt_initialisation_depends_on_patches_and_width() -> None:
    backbone = adapt("vpt", {"tokens": 400})  # 4 x 4 pixels, 12 channels
    assert_uniform([p.detach() for p in added(backbone).values()], math.sqrt(6 / (3 * 4 * 4 + 12)))


# -- every trainable tensor can move -------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("method", "config", "expected"),
    [
        ("full", {}, 85_798_656),
        ("linear", {}, 0),
        ("bitfit", {}, 102_912),
        ("vpt", {"tokens": 1}, 9_216),
        ("vpt", {}, 92_160),  # 10 tokens
        ("vpt", {"tokens": 100}, 921_600),
        ("vpt_shallow", {"tokens": 1}, 768),
        ("vpt_shallow", {}, 7_680),
        ("vpt_shallow", {"tokens": 50}, 38_400),
        ("adapter", {}, 156_768),
        ("adaptformer", {}, 156_768),
        ("adaptformer", {"hidden": 64}, 1_189_632),
        ("lora", {}, 294_912),
        ("convpass", {}, 327_552),
        ("convpass_attn", {}, 163_776),
    ],
)
def test_published_counts(method: str, config: dict[str, Any], expected: int) -> None:
    """On ViT-B/16, without the head."""
    assert declared_and_measured(method, config, base()) == [expected, expected]


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


SIZE = {
    "vpt": "tokens",
    "vpt_shallow": "tokens",
    "adapter": "hidden",
    "adaptformer": "hidden",
    "lora": "rank",
    "convpass": "hidden",
    "convpass_attn": "hidden",
}


@pytest.mark.parametrize("method", sorted(builtin()))
@given(model=tiny_models(), size=st.integers(1, 20))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_declared_count_is_measured(method: str, model: dict[str, Any], size: int) -> None:
    with torch.device("meta"):
        backbone = Backbone(VisionTransformer(**model))
        backbone.prepare(CLASSES)
    config = {SIZE[method]: size} if method in SIZE else {}
    declared, measured = declared_and_measured(method, config, backbone)
    assert declared == measured


# -- refusals ------------------------------------------------------------------------------------

NAN, INFINITY = float("nan"), float("inf")
BAD: list[tuple[str, str, object, str]] = [
    *(
        (method, SIZE[method], value, allowed)
        for method in SIZE
        for value, allowed in (
            (0, ">= 1"),
            (-3, ">= 1"),
            (True, "of type int"),
            (2.0, "of type int"),
            ("8", "of type int"),
            (None, "of type int"),
        )
    ),
    *(
        (method, "dropout", value, allowed)
        for method in DROPOUT
        for value, allowed in (
            (1.0, ">= 0 and < 1"),
            (1, ">= 0 and < 1"),
            (-0.1, ">= 0 and < 1"),
            (NAN, "finite"),
            (False, "of type float"),
            ("0.1", "of type float"),
        )
    ),
    *(
        (method, "scale", value, allowed)
        for method in ("adaptformer", "convpass", "convpass_attn")
        for value, allowed in ((NAN, "finite"), (INFINITY, "finite"), ("1", "of type float"))
    ),
    ("lora", "alpha", 0, "> 0"),
    ("lora", "alpha", -1.0, "> 0"),
    ("lora", "alpha", NAN, "finite"),
    ("lora", "alpha", INFINITY, "finite"),
    ("adapter", "init", "identity", "one of 'xavier', 'zero_up'"),
    ("adapter", "init", True, "one of 'xavier', 'zero_up'"),
    ("convpass", "init", "zero", "one of 'xavier', 'identity'"),
    ("convpass_attn", "init", "Xavier", "one of 'xavier', 'identity'"),
    ("convpass", "init", None, "one of 'xavier', 'identity'"),
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
