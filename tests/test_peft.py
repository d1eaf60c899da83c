"""PEFT's tuners as methods: the contract, counts, merging, and what is refused."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from petlbench import check, method, plan
from petlbench.backbone import Backbone, stored_tensors, trained_parameters
from petlbench.backbones.vit import ViT
from petlbench.errors import UsageError
from petlbench.request import Request

pytest.importorskip("peft")
BRIDGE = importlib.import_module("petlbench.methods._peft")
FILE = method.families()["peft"]
NAMES = sorted(method.members(FILE))

# Where the default does not fit a width of 16.
TINY: dict[str, dict[str, Any]] = {
    "c3a": {"block_size": 16},
    "fourierft": {"n_frequency": 100},
    "psoft": {"r": 8},
    "vblora": {"vector_length": 16, "num_vectors": 8},
    "waveft": {"n_frequency": 100},
}
COUNTS = {  # on ViT-B/16: 12 layers qkv, 768 -> 2304
    "beft": 12 * 2304,
    "dora": 12 * (8 * (768 + 2304) + 2304),
    "fourierft": 12 * 1000,
    "hira": 12 * 32 * (768 + 2304),
    "hra": 12 * 8 * 768,
    "ia3": 12 * (2304 + 3072),  # fc2 has 3072 inputs
    "ln_tuning": 25 * 2 * 768,
    "loha": 12 * 2 * 8 * (768 + 2304),
    "lora": 12 * 8 * (768 + 2304),
    "miss": 12 * 16 * 2304,
    "oft": 12 * 24 * (32 * 31 // 2),
    "pissa": 12 * 8 * (768 + 2304),
    "pvera": 12 * (2 * 256 + 2304),
    "shira": 12 * 8 * (768 + 2304),
    "unilora": 256,
    "vera": 12 * (256 + 2304),
}
CLS = "[cls] token"


def tuner(name: str) -> method.Method:
    return method.load(f"peft:{name}")(**TINY.get(name, {}))


def attach(name: str, seed: int = 1, model: str = CLS) -> Backbone:
    backbone = check.tiny(model)
    torch.manual_seed(seed)
    tuner(name).attach(backbone)
    return backbone


def perturb(backbone: Backbone) -> None:
    with torch.no_grad():
        for name, parameter in trained_parameters(backbone).items():
            if not name.startswith("head."):
                parameter.add_(0.1 * torch.randn_like(parameter))


# -- the contract --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_contract(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`petlbench check`, on two of its models and one that must be refused."""
    few = {model: check.MODELS[model] for model in (CLS, "Swin")}
    monkeypatch.setattr(check, "MODELS", few)
    findings = list(check.check(tuner(name)))
    assert [f for f in findings if not f.holds] == []
    assert {f.claim for f in findings} == set(check.CLAIMS)  # and none refused


def frozen(backbone: Backbone) -> dict[str, Tensor]:
    trained = trained_parameters(backbone)
    return {n: t for n, t in check.tensors(backbone).items() if n not in trained}


@pytest.mark.parametrize("name", NAMES)
def test_what_is_frozen_does_not_depend_on_the_seed(name: str) -> None:
    """Random projections and positions have a seed of their own, or could not be rebuilt."""
    one, other = frozen(attach(name, 1)), frozen(attach(name, 2))
    assert one.keys() == other.keys()
    assert [n for n in one if not torch.equal(one[n], other[n])] == []


@pytest.mark.parametrize("name", NAMES)
def test_random_numbers_of_a_run_stay_its_own(name: str) -> None:
    """No tuner sets PyTorch's seed, and counting draws nothing."""
    attach(name, 1)
    one = torch.rand(1)
    attach(name, 2)
    assert not torch.equal(one, torch.rand(1))
    shape = check.tiny(CLS).shape
    state = torch.get_rng_state()
    tuner(name).num_trainable(shape)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", [n for n in NAMES if tuner(n).merges])
def test_merged_it_is_a_timm_model(name: str) -> None:
    """The exported weights, in timm's own model: what the adapted one computed."""
    backbone = attach(name).eval()
    perturb(backbone)
    backbone.double()
    images = check.images(backbone).double()
    with torch.no_grad():
        expected = backbone(images)
        tuner(name).merge(backbone)
        model = check.MODELS[CLS](num_classes=check.CLASSES).double().eval()  # type: ignore[call-arg]
        model.load_state_dict(backbone.export())
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_what_does_not_merge_says_why() -> None:
    with pytest.raises(UsageError, match="peft:lily cannot be merged: PEFT has no merging"):
        tuner("lily").merge(attach("lily"))


# -- counts --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def base() -> Any:
    with torch.device("meta"):
        return ViT(VisionTransformer()).shape


@pytest.mark.parametrize(("name", "expected"), COUNTS.items())
def test_counts_on_vit_b(base: Any, name: str, expected: int) -> None:
    assert method.load(f"peft:{name}")().num_trainable(base) == expected


def test_target_modules(base: Any) -> None:
    def count(targets: str) -> int:
        return method.load("peft:lora")(target_modules=targets, r=1).num_trainable(base)

    sizes = {"qkv": 768 + 2304, "proj": 768 + 768, "fc1": 768 + 3072, "fc2": 3072 + 768}
    assert {name: count(name) for name in sizes} == {n: 12 * size for n, size in sizes.items()}
    assert count("qkv, fc1") == count("qkv") + count("fc1")
    assert count("all") == sum(map(count, sizes))  # and not the convolution patch_embed.proj
    for bad in ("q", "", "qkv,q", "*"):
        with pytest.raises(UsageError, match="no linear layer called"):
            count(bad)


def test_a_model_without_blocks() -> None:
    shape = check.tiny("ConvNeXt").shape
    lora = method.load("peft:lora")
    with pytest.raises(UsageError, match="ConvNeXt has no linear layer called 'qkv'"):
        lora().require(shape)
    findings = list(check.check(lora(target_modules="fc1,fc2")))
    convnext = [f for f in findings if f.model == "ConvNeXt"]
    assert {f.claim for f in convnext} == set(check.CLAIMS) and all(f.holds for f in convnext)


# -- what is computed ----------------------------------------------------------------------------


def layer(backbone: Backbone, name: str) -> Any:
    return backbone.vit.get_submodule(f"blocks.1.{name}")


def test_lora_as_a_formula() -> None:
    backbone = check.tiny(CLS)
    qkv = layer(backbone, "attn.layer.qkv")
    w, b = qkv.weight, qkv.bias
    method.load("peft:lora")(r=4, lora_alpha=2).attach(backbone)
    perturb(backbone)
    p = dict(layer(backbone, "attn.layer.qkv").named_parameters())
    down, up = (p[f"0.lora_{x}.default.weight"] for x in "AB")
    x = torch.randn(2, 5, 32)
    assert down.shape == (4, 32)
    torch.testing.assert_close(
        layer(backbone, "attn.layer.qkv")(x), x @ w.T + b + 2 / 4 * x @ down.T @ up.T
    )


def test_ia3_as_a_formula() -> None:
    """Outputs of qkv are scaled, and inputs of fc2."""
    backbone = check.tiny(CLS)
    plain = {n: layer(backbone, n) for n in ("attn.layer.qkv", "mlp.layer.fc2")}
    method.load("peft:ia3")().attach(backbone)
    perturb(backbone)
    x, h = torch.randn(2, 5, 32), torch.randn(2, 5, 128)
    (scale,) = trained_parameters(layer(backbone, "attn.layer.qkv")).values()
    qkv = plain["attn.layer.qkv"]
    torch.testing.assert_close(
        layer(backbone, "attn.layer.qkv")(x), (x @ qkv.weight.T + qkv.bias) * scale.T
    )
    (scale,) = trained_parameters(layer(backbone, "mlp.layer.fc2")).values()
    fc2 = plain["mlp.layer.fc2"]
    torch.testing.assert_close(
        layer(backbone, "mlp.layer.fc2")(h), (h * scale) @ fc2.weight.T + fc2.bias
    )


def test_shared_tensors_are_one() -> None:
    """VeRA's random factors: in every layer the same, stored once, and out of the count."""
    backbone = attach("vera")
    buffers = [n for n in stored_tensors(backbone) if "vera_A" in n or "vera_B" in n]
    assert len(buffers) == 2


def test_weights_that_a_tuner_computes_with_stay_in_full_precision() -> None:
    backbone = attach("dora")
    backbone.store_frozen(torch.bfloat16)
    kinds = {n: p.dtype for n, p in backbone.vit.named_parameters()}
    assert {kind for n, kind in kinds.items() if ".qkv." in n} == {torch.float32}
    assert {kind for n, kind in kinds.items() if "fc1.weight" in n} == {torch.bfloat16}


# -- names and settings --------------------------------------------------------------------------


def test_names() -> None:
    spec = method.specify("peft:lora", {"r": 4})
    assert (spec.name, spec.label, spec.reference) == ("peft:lora", "peft:lora(r=4)", "peft:lora")
    assert spec.source is not None  # PEFT's version
    assert spec.build() == method.load("peft:lora")(r=4)
    assert (method.load("peft:lora").__doc__ or "").startswith("LoRA: ")


def test_another_version_is_another_method(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = method.specify("peft:lora")
    monkeypatch.setattr(method.metadata, "version", lambda name: "0.0.1")
    assert method.specify("peft:lora").source != spec.source
    with pytest.raises(method.RunError):
        spec.build()


def test_settings_from_the_command_line() -> None:
    asked = {"peft:lora.r": "4", "peft:lora.use_rslora": "true", "peft:oft.oft_block_size": "16"}
    made = plan.make(Request(methods=["peft:lora", "peft:oft", "linear"], settings=asked))
    labels = list(dict.fromkeys(spec.method.label for spec in made.specs))
    assert labels == ["peft:lora(r=4, use_rslora=True)", "peft:oft(oft_block_size=16)", "linear"]


@pytest.mark.parametrize(
    ("reference", "config", "message"),
    [
        ("peft:lorra", {}, "unknown tuner of PEFT 'peft:lorra'. Did you mean peft:lora"),
        ("peft:", {}, "unknown tuner of PEFT 'peft:'"),
        ("pefd:lora", {}, "Did you mean peft:lora"),
        ("peft:lora", {"rank": 4}, "unknown setting of peft:lora 'rank'"),
        ("peft:lora", {"r": "4"}, "peft:lora.r = '4' must be of type int."),
        ("peft:lora", {"lora_dropout": 1.0}, "peft:lora.lora_dropout = 1.0 is out of range"),
        ("peft:lora", {"lora_alpha": 0}, "peft:lora.lora_alpha = 0 is out of range"),
        ("peft:road", {"variant": "road_9"}, "peft:road: "),
    ],
)
def test_bad_requests(reference: str, config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        method.specify(reference, config)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("name", "config", "message"),
    [
        ("lora", {"r": 0}, "positive integer"),
        ("c3a", {"block_size": 7}, "block size"),
        ("peanut", {"act_fn": "nonsense"}, "peft:peanut: "),
        ("vblora", {"vector_length": 256}, "divisible"),
    ],
)
def test_what_peft_refuses_is_told_before_a_run(
    name: str, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        method.load(f"peft:{name}")(**config).require(check.tiny(CLS).shape)


@pytest.mark.parametrize("name", BRIDGE.REFUSED)
def test_what_cannot_work_says_why(name: str) -> None:
    assert name not in BRIDGE.METHODS
    with pytest.raises(UsageError) as raised:
        method.load(f"peft:{name}")
    assert f"peft:{name} cannot be run here: {BRIDGE.REFUSED[name]}." == str(raised.value)


def test_no_tuner_of_peft_is_forgotten() -> None:
    """Those that came after the tables were written are named here, to be tried."""
    known = {BRIDGE.TUNERS.get(n, {}).get("peft_type", n) for n in NAMES} | set(BRIDGE.REFUSED)
    there = {kind.value.lower() for kind in BRIDGE.peft("mapping").PEFT_TYPE_TO_CONFIG_MAPPING}
    assert there <= known


def test_without_peft(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft.mapping", None)
    BRIDGE.make.cache_clear()
    with pytest.raises(UsageError, match=r"pip install 'petlbench\[peft\]'"):
        method.load("peft:vera")
    assert "lora" in method.members(FILE)  # listed all the same
