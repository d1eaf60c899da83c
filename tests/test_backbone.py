"""The backbone with sites is timm's model bit for bit, and every site is where it says."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from timm.layers import DropPath, SwiGLUPacked
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block as TimmBlock
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor, nn

from petlbench import method
from petlbench.backbone import (
    Backbone,
    Block,
    Branch,
    CompiledDropPath,
    Site,
    load_stored,
    trained_parameters,
)
from petlbench.backbones import adopt
from petlbench.backbones.other import Other
from petlbench.backbones.vit import ViT
from petlbench.errors import UsageError

DIM, DEPTH, HEADS = 12, 3, 2
TINY: dict[str, Any] = {
    "img_size": (12, 8),
    "patch_size": 4,
    "embed_dim": DIM,
    "depth": DEPTH,
    "num_heads": HEADS,
    "mlp_ratio": 2.0,
    "num_classes": 5,
}
MODELS: dict[str, dict[str, Any]] = {
    "cls": {},
    "registers": {"reg_tokens": 4, "no_embed_class": True},
    "layer_scale": {"init_values": 0.1, "reg_tokens": 2},
    "average": {"global_pool": "avg", "class_token": False},
    "average_with_cls": {"global_pool": "avg", "fc_norm": False},
    "qk_norm": {"qk_norm": True, "qkv_bias": False},
    "clip": {"pre_norm": True, "act_layer": "quick_gelu"},
    "swiglu": {"mlp_layer": SwiGLUPacked, "act_layer": nn.SiLU, "init_values": 1e-2},
}


def timm_vit(**options: Any) -> VisionTransformer:
    """A tiny model at random weights, LayerNorms and LayerScales included."""
    torch.manual_seed(0)
    vit = VisionTransformer(**TINY | options)
    with torch.no_grad():
        for parameter in vit.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return vit.eval()


def images(number: int = 2) -> Tensor:
    return torch.randn(number, 3, 12, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("model", MODELS)
def test_equals_timm(model: str) -> None:
    """Evaluation, and training with the same random draws: the same bits, from the same tensors."""
    rates = {"drop_path_rate": 0.5, "proj_drop_rate": 0.2, "pos_drop_rate": 0.1}
    original = timm_vit(**MODELS[model], **rates)
    wrapped = copy.deepcopy(original)
    head = wrapped.head
    parameters = {id(p) for p in wrapped.parameters()} - {id(p) for p in head.parameters()}
    backbone = adopt(wrapped)
    assert {id(p) for p in backbone.parameters()} == parameters
    backbone.head = head
    for training in (True, False):
        outputs = []
        for network in (original, backbone):
            network.train(training)
            torch.manual_seed(2)
            outputs.append(network(images()))
        assert torch.equal(*outputs)
    gradients = [
        torch.autograd.grad(output.sin().sum(), list(network.parameters()))
        for output, network in zip(outputs, (original, backbone), strict=True)
    ]
    for of_original, of_backbone in zip(*gradients, strict=True):
        assert of_original.any() and torch.equal(of_original, of_backbone)


@pytest.mark.parametrize("model", MODELS)
def test_shape(model: str) -> None:
    options = MODELS[model]
    original = timm_vit(**options)
    features = sum(p.numel() for p in original.parameters()) - (DIM * 5 + 5)
    named = [*original.named_parameters()]  # before wrapping, which drops the timm head
    shape = adopt(original).shape
    block = shape.blocks[0]
    assert (block.dim, len(shape.blocks), block.num_heads) == (DIM, DEPTH, HEADS)
    assert block.linears["fc1"] == (DIM, 24)
    assert (shape.patch_size, shape.image_size, block.grid) == ((4, 4), (12, 8), (3, 2))
    prefix = int(options.get("class_token", True)) + options.get("reg_tokens", 0)
    assert block.num_prefix_tokens == prefix
    assert shape.num_parameters == features
    biases = [p for name, p in named if name.endswith(".bias") and not name.startswith("head.")]
    assert shape.num_biases == sum(p.numel() for p in biases)


def test_explicit_attention_is_the_same_formula() -> None:
    backbone = adopt(timm_vit()).double().eval()
    outputs = []
    for fused in (True, False):
        backbone.use_fused_attention(fused)
        assert all(block.attn.layer.fused_attn is fused for block in backbone.blocks)
        outputs.append(backbone(images().double()))
    torch.testing.assert_close(*outputs, rtol=1e-12, atol=1e-12)


def test_prepare() -> None:
    """Nothing trains but a fresh head, whose weights PyTorch draws by default."""
    backbone = adopt(timm_vit())
    backbone.prepare(40)
    assert trained_parameters(backbone).keys() == {"head.weight", "head.bias"}
    assert backbone(images()).shape == (2, 40)
    weight = trained_parameters(backbone)["head.weight"]
    assert weight.shape == (40, DIM)
    assert 0.9 * DIM**-0.5 < weight.abs().max() <= DIM**-0.5


# -- sites ---------------------------------------------------------------------------------------


class Probe(nn.Module):
    """tanh(A x), another A for every probe: not linear, so that order and place both show."""

    def __init__(self, seed: int, out: int = DIM, into: int = DIM) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.a = torch.randn(out, into, generator=generator, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(x @ self.a.T)


class Times(nn.Module):
    """A drop-path that can be predicted."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Repeat(nn.Module):
    """Changes the number of tokens."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, 2 * x[:, :1]], dim=1)


def block_and_timm_block() -> tuple[Block, TimmBlock, Tensor]:
    """The same block with sites and without, a drop-path of x 3, and an input (B, N, D)."""
    vit = timm_vit(init_values=0.1).double()
    original = copy.deepcopy(vit.blocks[1])
    backbone = adopt(vit)
    block = list(backbone.blocks)[1]
    for branch in block.branches:
        branch.drop_path = Times(3.0)
    x = torch.randn(2, 7, DIM, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return block, original, x


def parts(block: TimmBlock, mlp: bool) -> tuple[nn.Module, nn.Module, nn.Module]:
    """norm, layer and layer scale of one of timm's branches."""
    if mlp:
        return block.norm2, block.mlp, block.ls2
    return block.norm1, block.attn, block.ls1


Formula = Callable[[Tensor, nn.Module, nn.Module, nn.Module, Probe, Probe], Tensor]
# Site -> x, norm, layer, layer scale, two modules attached in this order -> the branch's output.
SITES: dict[str, Formula] = {
    "before": lambda x, norm, layer, ls, p, q: x + 3 * ls(layer(q(p(norm(x))))),
    "after": lambda x, norm, layer, ls, p, q: x + q(p(3 * ls(layer(norm(x))))),
    "parallel": lambda x, norm, layer, ls, p, q: (
        x + 3 * ls(layer(norm(x))) + p(norm(x)) + q(norm(x))
    ),
    "parallel_residual": lambda x, norm, layer, ls, p, q: x + 3 * ls(layer(norm(x))) + p(x) + q(x),
}


@pytest.mark.parametrize("mlp", [False, True], ids=["attn", "mlp"])
@pytest.mark.parametrize("site", SITES)
def test_branch_site(site: str, mlp: bool) -> None:
    block, original, x = block_and_timm_block()
    branch = block.mlp if mlp else block.attn
    probes = Probe(1), Probe(2)
    getattr(branch, site).extend(probes)
    expected = SITES[site](x, *parts(original, mlp), *probes)
    torch.testing.assert_close(branch(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("mlp", [False, True], ids=["attn", "mlp"])
def test_branch_sites_together(mlp: bool) -> None:
    """`parallel` reads LN x and not what `before` made of it, and `after` does not see it."""
    block, original, x = block_and_timm_block()
    branch = block.mlp if mlp else block.attn
    before, after, parallel, residual = (Probe(seed) for seed in range(4))
    branch.before.append(before)
    branch.after.append(after)
    branch.parallel.append(parallel)
    branch.parallel_residual.append(residual)
    norm, layer, ls = parts(original, mlp)
    y = after(3 * ls(layer(before(norm(x)))))
    expected = x + y + parallel(norm(x)) + residual(x)
    torch.testing.assert_close(branch(x), expected, rtol=1e-12, atol=1e-12)


def test_block_sites() -> None:
    """`tokens` before both branches, may lengthen the sequence; `out` after both."""
    block, original, x = block_and_timm_block()
    original.drop_path1 = original.drop_path2 = Times(3.0)
    first, second = Probe(1), Probe(2)
    block.tokens.extend([Repeat(), first])
    block.mlp.out.extend([second, Repeat()])
    expected = Repeat()(second(original(first(Repeat()(x)))))
    assert expected.shape == (2, 9, DIM)
    torch.testing.assert_close(block(x)[0], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["qkv", "proj", "fc1", "fc2"])
def test_deltas(name: str) -> None:
    """W x + b + sum of deltas(x), inside each of the four linear maps."""
    block, original, x = block_and_timm_block()
    original.drop_path1 = original.drop_path2 = Times(3.0)
    owners = {"qkv": "attn", "proj": "attn", "fc1": "mlp", "fc2": "mlp"}
    linear = getattr(getattr(block, owners[name]).layer, name)
    plain = getattr(getattr(original, owners[name]), name)
    assert torch.equal(linear.weight, plain.weight) and torch.equal(linear.bias, plain.bias)
    probes = [Probe(seed, plain.out_features, plain.in_features) for seed in (1, 2)]
    linear.deltas.extend(probes)
    plain.register_forward_hook(
        lambda _, inputs, output: output + probes[0](*inputs) + probes[1](*inputs)
    )
    without = copy.deepcopy(block)
    getattr(getattr(without, owners[name]).layer, name).deltas = Site()
    torch.testing.assert_close(block(x)[0], original(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(block(x)[0], without(x)[0])


@pytest.mark.parametrize("site", ["tokens", "side", "mlp.out", "attn.before", "mlp.parallel"])
def test_attached_parameters_train(site: str) -> None:
    """What is attached is a submodule: it trains by birth, moves with `.to` and is stored."""
    backbone = adopt(timm_vit())
    backbone.prepare(2)
    backbone.get_submodule(f"vit.blocks.2.{site}").append(nn.Linear(DIM, DIM))
    names = trained_parameters(backbone).keys() - {"head.weight", "head.bias"}
    assert names == {f"vit.blocks.2.{site}.0.weight", f"vit.blocks.2.{site}.0.bias"}


# -- drop-path -----------------------------------------------------------------------------------


def branches(backbone: Backbone) -> list[Branch]:
    return [branch for block in backbone.blocks for branch in block.branches]


def test_drop_path_ramp() -> None:
    """From 0 at the first block to the rate at the last, the same at both branches."""
    rates = [branch.drop_path_rate for branch in branches(adopt(timm_vit(drop_path_rate=0.4)))]
    assert rates == pytest.approx([0.0, 0.0, 0.2, 0.2, 0.4, 0.4])
    assert {branch.drop_path_rate for branch in branches(adopt(timm_vit()))} == {0.0}


def test_drop_path_off() -> None:
    """Training mode becomes deterministic, and equal to evaluation."""
    backbone = adopt(timm_vit(drop_path_rate=0.9))
    evaluated = backbone(images(8))
    backbone.train()
    assert not torch.equal(backbone(images(8)), backbone(images(8)))
    backbone.drop_path_off()
    assert {branch.drop_path_rate for branch in branches(backbone)} == {0.0}
    assert torch.equal(backbone(images(8)), backbone(images(8)))
    assert torch.equal(backbone(images(8)), evaluated)


# -- refusals ------------------------------------------------------------------------------------


def test_refuses_other_classes() -> None:
    distilled = VisionTransformerDistilled(**TINY)
    assert "not a plain VisionTransformer" in ViT.refuses(distilled)
    with pytest.raises(UsageError, match=r"Linear is not a backbone .* no feature"):
        adopt(nn.Linear(2, 2))
    with pytest.raises(UsageError, match="BatchNorm"):
        adopt(timm.create_model("resnet10t"))


@pytest.mark.parametrize("block", [ResPostBlock, ParallelScalingBlock, DiffParallelScalingBlock])
def test_refuses_other_blocks(block: type[nn.Module]) -> None:
    """They are no plain blocks; as a whole they can still be probed or fine-tuned."""
    model = VisionTransformer(**TINY, block_fn=block)
    assert block.__name__ in ViT.refuses(model)
    assert type(adopt(model)) is Other


def test_refuses_a_wrapped_model() -> None:
    """Its blocks carry sites already."""
    vit = timm_vit()
    adopt(vit)
    assert "Block" in ViT.refuses(vit)


# -- trained weights -----------------------------------------------------------------------------


def adapted(seed: int, classes: int = 3) -> Backbone:
    backbone = adopt(timm_vit())
    torch.manual_seed(seed)
    backbone.prepare(classes)
    for branch in branches(backbone):
        branch.after.append(nn.Linear(DIM, DIM))
    return backbone


def test_trained_weights_round_trip() -> None:
    trained, other = adapted(1), adapted(2)
    stored = {name: p.detach().clone() for name, p in trained_parameters(trained).items()}
    assert len(stored) == 2 + 2 * 2 * DEPTH
    assert not torch.equal(trained(images()), other(images()))
    load_stored(other, stored)
    assert torch.equal(trained(images()), other(images()))
    assert trained_parameters(other).keys() == stored.keys()  # they still train


def test_load_trained_refuses() -> None:
    """Another method's weights, in both directions, and nothing is loaded by halves."""
    model = adapted(1)
    stored = {name: p.detach().clone() for name, p in trained_parameters(model).items()}
    kept = model(images())
    missing = {name: torch.zeros_like(p) for name, p in stored.items() if name != "head.bias"}
    for wrong in (missing, missing | {"head.bias": stored["head.bias"], "extra": torch.zeros(1)}):
        with pytest.raises(UsageError, match=r"head\.bias|extra"):
            load_stored(model, wrong)
    assert torch.equal(model(images()), kept)


@pytest.mark.parametrize("number", [1, 4])
def test_load_trained_refuses_other_shapes(number: int) -> None:
    """A head of one class must not be broadcast over three."""
    model = adapted(1, classes=3)
    stored = {name: p.detach() for name, p in trained_parameters(adapted(2, number)).items()}
    with pytest.raises(UsageError, match=r"head\.weight"):
        load_stored(model, stored)


# -- stages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_stages_in_two_parts_are_the_whole(model: str) -> None:
    backbone = adopt(timm_vit(**MODELS[model]))
    backbone.prepare(5)
    whole = backbone(images())
    for stage in range(DEPTH + 3):
        assert torch.equal(backbone(backbone.encode(images(), stop=stage), stage), whole)


def no_change(backbone: Backbone) -> None:
    """Only the head trains."""


def drop_path_of_the_second(backbone: Backbone) -> None:
    list(backbone.blocks)[1].mlp.drop_path = DropPath(0.2)


def site_without_parameters(backbone: Backbone) -> None:
    list(backbone.blocks)[2].attn.before.append(nn.Dropout(0.0))


def delta(backbone: Backbone) -> None:
    list(backbone.blocks)[1].attn.linear("qkv").deltas.append(nn.Identity())


def dropout_behind_the_embedding(backbone: Backbone) -> None:
    backbone.vit.pos_drop.p = 0.1


def last_block(backbone: Backbone) -> None:
    list(backbone.blocks)[-1].requires_grad_(True)


def final_norm(backbone: Backbone) -> None:
    backbone.vit.norm.bias.requires_grad_(True)


def cls_token(backbone: Backbone) -> None:
    backbone.vit.cls_token.requires_grad_(True)


FROZEN: dict[Callable[[Backbone], None], int] = {
    no_change: DEPTH + 2,
    drop_path_of_the_second: 2,
    site_without_parameters: 3,
    delta: 2,
    dropout_behind_the_embedding: 0,
    last_block: DEPTH,
    final_norm: DEPTH + 1,
    cls_token: 0,
}


@pytest.mark.parametrize("change", FROZEN, ids=lambda change: change.__name__)
def test_frozen_stages(change: Callable[[Backbone], None]) -> None:
    """As many as expected; and what they give needs no gradient and no random number."""
    backbone = adopt(timm_vit())
    backbone.prepare(5)
    change(backbone)
    assert backbone.frozen_stages() == FROZEN[change]
    features = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        features.append(backbone.train().encode(images(), stop=backbone.frozen_stages()))
    assert torch.equal(*features) and not features[0].requires_grad
    backbone.eval()
    assert torch.equal(features[0], backbone.encode(images(), stop=backbone.frozen_stages()))


def kept_bytes(backbone: Backbone) -> int:
    """Bytes that autograd keeps for the backward pass, parameters aside."""
    kept: dict[int, int] = {}
    parameters = {p.data_ptr() for p in backbone.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in parameters:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        backbone(images(8)).sum()
    return sum(kept.values())


def test_nothing_is_kept_before_the_first_trainable_module() -> None:
    def trains(first: int) -> int:
        backbone = adopt(timm_vit()).train()
        backbone.prepare(5)
        for block in list(backbone.blocks)[first:]:
            block.requires_grad_(True)
        return kept_bytes(backbone)

    *each, head = (trains(first) for first in range(DEPTH + 1))
    assert head == 8 * 7 * DIM * 4  # the head's input, a view of the last tokens
    steps = [more - less for more, less in zip(each, [*each[1:], head], strict=True)]
    assert all(step > 8 * 7 * DIM * 4 * 5 for step in steps)  # each block keeps several tokens
    assert max(steps) < 1.2 * min(steps)


# -- how it is computed --------------------------------------------------------------------------


def gradients(backbone: Backbone, bf16: bool = False) -> tuple[Tensor, list[Tensor]]:
    """Logits and the gradients of what trains, in training mode with the same random draws."""
    torch.manual_seed(4)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = backbone.train()(images(4))
    trained = list(trained_parameters(backbone).values())
    return logits, list(torch.autograd.grad(logits.float().sin().sum(), trained))


def adapted_by(name: str) -> Backbone:
    backbone = adopt(timm_vit(drop_path_rate=0.3))
    torch.manual_seed(5)
    backbone.prepare(5)
    method.load(name)().attach(backbone)
    for parameter in trained_parameters(backbone).values():
        nn.init.normal_(parameter, std=0.1)
    return backbone


@pytest.mark.parametrize("name", ["convpass", "lora", "bitfit", "linear", "vpt", "full"])
def test_storing_frozen_weights_in_bf16_is_what_autocast_does(name: str) -> None:
    """The same bits, forward and backward."""
    plain, stored = adapted_by(name), adapted_by(name)
    stored.store_frozen(torch.bfloat16)
    frozen = {n for n, p in stored.named_parameters() if p.dtype == torch.bfloat16}
    assert not frozen & trained_parameters(stored).keys()
    weights = {n for n, p in stored.named_parameters() if n.endswith("fc1.weight")}
    assert weights <= frozen or name == "full"
    assert not any("qkv.weight" in n for n in frozen) or name != "lora"
    for ours, theirs in zip(*(gradients(each, bf16=True) for each in (stored, plain)), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)


def test_what_a_method_keeps_frozen_stays_as_it_is() -> None:
    """As in VeRA: a frozen random projection, with which a method may do what it likes."""
    backbone = adapted_by("linear")
    projection = nn.Linear(DIM, DIM).requires_grad_(False)
    backbone.blocks[0].mlp.after.append(projection)
    backbone.store_frozen(torch.bfloat16)
    assert projection.weight.dtype == torch.float32
    assert backbone.blocks[0].mlp.linear("fc1").weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["convpass", "lora", "vpt", "full"])
def test_bf16_is_near_fp32(name: str) -> None:
    logits, of_fp32 = gradients(adapted_by(name))
    half = adapted_by(name)
    half.store_frozen(torch.bfloat16)
    low, of_bf16 = gradients(half, bf16=True)
    torch.testing.assert_close(low, logits, rtol=0.05, atol=0.05)
    a, b = (torch.cat([g.flatten() for g in each]) for each in (of_bf16, of_fp32))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99


@pytest.mark.parametrize("name", ["convpass", "lora", "vpt", "full"])
def test_recomputing_changes_no_bit_and_keeps_less(name: str) -> None:
    plain, again = adapted_by(name), adapted_by(name)
    again.recompute = True
    for ours, theirs in zip(*(gradients(each) for each in (again, plain)), strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert torch.equal(a, b)
    assert kept_bytes(again) < 0.5 * kept_bytes(plain)


@pytest.mark.parametrize("scale", [True, False])
def test_the_drop_path_of_compiled_blocks_is_timms(scale: bool) -> None:
    """Whole samples dropped at the rate, the others scaled; nothing in evaluation."""
    dropped = CompiledDropPath(DropPath(0.25, scale), torch.device("cpu"))
    x = torch.rand(4000, 3, 2) + 1
    factor = dropped(x) / x
    kept = 1 / 0.75 if scale else 1.0
    torch.testing.assert_close(factor.amax((1, 2)), factor.amin((1, 2)))
    assert torch.isclose(factor, torch.tensor(kept)).logical_or(factor == 0).all()
    assert float((factor == 0).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert dropped.drop_prob == 0.25 and not list(dropped.buffers())
    assert torch.equal(dropped.eval()(x), x)


@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_are_the_same_formula() -> None:
    plain, compiled = adapted_by("convpass").eval(), adapted_by("convpass").eval()
    compiled.compile_blocks()
    with torch.no_grad():
        torch.testing.assert_close(compiled(images()), plain(images()), rtol=1e-5, atol=1e-5)
