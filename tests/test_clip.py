"""CLIP with two towers: the same functions as open_clip's, and every method on either tower."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from petlbench import api, experiment, method, plan, weights
from petlbench.adapted import load_adapted
from petlbench.backbone import trained_parameters
from petlbench.backbones.clip import CLIP
from petlbench.errors import UsageError
from petlbench.experiment import Machine
from petlbench.problems import classification
from petlbench.protocol import Protocol
from petlbench.request import Request
from petlbench.task import Task, class_names

open_clip = pytest.importorskip("open_clip")

CONFIGURATION: dict[str, Any] = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {
        "image_size": 32,
        "layers": 3,
        "width": 32,
        "head_width": 16,
        "patch_size": 8,
    },
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
TEXTS = ["A photo of a cat.", "a photo of a lawn mower.", "A photo of an axolotl in a tank."]


@pytest.fixture(autouse=True)
def file(tmp_path: Path) -> Path:
    (tmp_path / "tiny.json").write_text(json.dumps(CONFIGURATION))
    return tmp_path / "tiny.json"


def scrambled(towers: str = "image", drop_path: float = 0.0) -> Any:
    """open_clip's model, seeded, without zeros or ones behind which an error could hide."""
    torch.manual_seed(0)
    model = weights.create("clip:tiny.json", 32, drop_path, towers=towers)
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    return model.eval()


def adopted(towers: str = "image", drop_path: float = 0.0, texts: list[str] = TEXTS) -> CLIP:
    backbone = CLIP(scrambled(towers, drop_path))
    backbone.prepare(3, texts)
    return backbone.eval()


def images(count: int = 4) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def zero_shot(model: Any) -> Tensor:
    image, text, scale = model(images(), open_clip.tokenize(TEXTS, context_length=20))
    return scale * image @ text.T  # type: ignore[no-any-return]


def batches(size: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(images(20).split(size), (torch.arange(20) % 3).split(size), strict=True)


def close(a: Tensor, b: Tensor) -> bool:
    return bool((a - b).abs().max() < 1e-5 * b.abs().max())


# The same functions


@pytest.mark.parametrize("towers", ["image", "text", "both"])
@pytest.mark.parametrize("fused", [False, True])
@torch.no_grad()
def test_both_towers_compute_what_open_clip_computes(towers: str, fused: bool) -> None:
    model, backbone = scrambled(), adopted(towers)
    backbone.use_fused_attention(fused)
    assert close(backbone.both[0].pool(run_image(backbone)), model.encode_image(images()))
    tokens = model.tokenizer(TEXTS)
    expected = model.encode_text(tokens)
    assert close(backbone.both[1](tokens, backbone.through), expected)
    assert close(backbone.both[1](tokens[:, :14], backbone.through), expected)  # none is longer


def run_image(backbone: CLIP) -> Tensor:
    return backbone.encode(images(), stop=len(backbone.path) + 1)


@pytest.mark.parametrize(
    "vision",
    [
        {"pool_type": "avg"},
        {"final_ln_after_pool": True},
        {"no_ln_pre": True, "ls_init_value": 0.1},
        {"image_size": [32, 32], "patch_size": [8, 4], "mlp_ratio": 2.0},
    ],
    ids=str,
)
@torch.no_grad()
def test_variants_of_the_image_tower(file: Path, vision: dict[str, Any]) -> None:
    changed = {**CONFIGURATION, "vision_cfg": CONFIGURATION["vision_cfg"] | vision}
    file.write_text(json.dumps({"model_cfg": changed}))
    backbone, model = CLIP(scrambled()), scrambled()
    backbone.prepare(3)
    assert close(backbone.eval().encode(images()), model.encode_image(images()))


@pytest.mark.parametrize("towers", ["image", "text", "both"])
@torch.no_grad()
def test_head_of_texts_starts_as_open_clips_zero_shot(towers: str) -> None:
    assert close(adopted(towers)(images()), zero_shot(scrambled()))


@torch.no_grad()
def test_fresh_head_reads_the_image_feature() -> None:
    backbone = adopted(texts=[])
    expected = backbone.head(scrambled().encode_image(images()))
    assert close(backbone(images()), expected)


@pytest.mark.parametrize("towers", ["image", "text", "both"])
def test_exports_by_open_clips_names(towers: str) -> None:
    model, backbone = scrambled(), adopted(towers)
    exported = backbone.export()
    state = {name: p.detach() for name, p in model.named_parameters()}
    assert {n for n in exported if not n.startswith("head.")} == state.keys()
    assert all(torch.equal(exported[name], value) for name, value in state.items())


# What methods see


@pytest.mark.parametrize("towers", ["image", "text", "both"])
def test_shape_is_that_of_the_adapted_towers(towers: str) -> None:
    shape = adopted(towers).shape
    model = scrambled()
    image = sum(p.numel() for p in model.visual.parameters())
    text = sum(p.numel() for p in model.parameters()) - image - 1  # the scale is of neither
    assert shape.num_parameters == {"image": image, "text": text, "both": image + text}[towers]
    grids = [(4, 4)] * 3 * (towers != "text") + [None] * 2 * (towers != "image")
    assert [block.grid for block in shape.blocks] == grids
    assert shape.num_features == 24 and shape.image_size == (32, 32) and shape.family == "CLIP"


def trains(name: str, towers: str, texts: list[str] = TEXTS) -> None:
    """The claims of the contract; those about a head where there is one."""
    built = method.load(name)()
    backbone, plain = adopted(towers, 0.1, texts), adopted(towers, 0.1, texts)
    try:
        built.require(backbone.shape)
    except UsageError as error:
        pytest.skip(str(error))
    everything = dict(backbone.named_parameters()) | dict(backbone.both[0].named_parameters())
    before = {name: p.detach().clone() for name, p in everything.items()}
    built.attach(backbone)
    built.calibrate(backbone, batches)
    trained = trained_parameters(backbone)
    head = {n for n in trained if n.startswith("head.")}
    assert len(head) == (2 if towers == "image" else 0)
    measured = sum(p.numel() for n, p in trained.items() if n not in head)
    assert measured == built.num_trainable(backbone.shape)
    with torch.no_grad():
        same = close(backbone.eval()(images()), plain(images()))
    assert same == built.identity_at_init()
    backbone.train()
    started = {name: p.detach().clone() for name, p in trained.items()}
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2, weight_decay=0)
    for _ in range(2):
        optimizer.zero_grad()
        F.cross_entropy(backbone(images()), torch.arange(4) % 3).backward()
        optimizer.step()
    assert not [n for n, p in trained.items() if torch.equal(p, started[n])]
    frozen = {n: p for n, p in everything.items() if not p.requires_grad}
    assert not [n for n, p in frozen.items() if not torch.equal(p, before[n])]
    if built.merges:
        with torch.no_grad():
            expected = backbone.eval()(images())
            built.merge(backbone)
            assert close(backbone(images()), expected)


@pytest.mark.parametrize("name", method.builtin())
def test_every_method_on_the_image_tower(name: str) -> None:
    trains(name, "image", [])


@pytest.mark.parametrize("name", ["lora", "adapter", "convpass", "bitfit", "full", "linear"])
def test_methods_with_a_head_of_texts(name: str) -> None:
    trains(name, "image")


@pytest.mark.parametrize("towers", ["text", "both"])
@pytest.mark.parametrize("name", ["lora", "adapter", "bitfit", "full", "layernorm", "ssf"])
def test_methods_where_a_text_tower_is_adapted(name: str, towers: str) -> None:
    trains(name, towers)


@pytest.mark.parametrize("name", ["convpass", "vpt", "vqt"])
def test_methods_that_need_a_grid_say_so_of_a_text(name: str) -> None:
    with pytest.raises(UsageError, match="text"):
        method.load(name)().require(adopted("both").shape)


def test_a_tower_that_is_not_adapted_is_frozen_and_still() -> None:
    backbone = adopted("text", drop_path=0.3)
    method.load("lora")().attach(backbone)
    backbone.train()
    assert backbone.frozen_stages() == 5  # embedding, three blocks, norm and pooling
    backbone.use_fused_attention(False)
    attention: list[Any] = [block.get_submodule("attn") for block in backbone.path]
    assert not any(each.fused_attn for each in attention)
    rates = [block.attn.drop_path_rate for block in backbone.blocks]
    assert rates == pytest.approx([0.0, 0.3])
    with torch.no_grad():
        features = backbone.encode(images(), stop=5)
        assert torch.equal(backbone.encode(images()), features)
    assert adopted("both", drop_path=0.3).frozen_stages() == 2  # the first block's rate is zero


def test_recomputed_activations_give_the_same_gradient() -> None:
    found = []
    for recompute in (False, True):
        backbone = adopted("both").train()
        backbone.recompute = recompute
        method.load("bitfit")().attach(backbone)
        backbone(images()).logsumexp(1).sum().backward()
        found.append([p.grad for p in trained_parameters(backbone).values()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))  # type: ignore[arg-type]


def test_a_hidden_tower_follows_to_another_type() -> None:
    backbone = adopted("text").double()
    assert {p.dtype for p in backbone.both[0].parameters()} == {torch.float64}
    assert backbone(images().double()).shape == (4, 3)


# Names, configurations, checkpoints


def refused(name: str, checkpoint: str | None = "random") -> str:
    with pytest.raises(UsageError) as raised:
        weights.specify(name, checkpoint)
    return str(raised.value)


def test_names() -> None:
    assert weights.specify("clip:ViT-B-16", "random").name == "clip:ViT-B-16"
    assert weights.specify("clip:ViT-B-16.openai", "random").name == "clip:ViT-B-16.openai"
    assert "Did you mean ViT-B-16?" in refused("clip:vit-b-16")
    assert "unknown CLIP 'ViT-B-61'. Did you mean" in refused("clip:ViT-B-61")
    assert "Did you mean openai?" in refused("clip:ViT-B-16.opnai")
    assert "unknown kind of backbone 'clap'" in refused("clap:ViT-B-16")
    assert "ResNet" in refused("clip:RN50")
    assert "timm's vit_base_patch16_siglip_224" in refused("clip:ViT-B-16-SigLIP")
    assert "another library" in refused("clip:roberta-ViT-B-32")
    assert "multimodal_cfg" in refused("clip:coca_ViT-B-32")


def test_listed_names_exist() -> None:
    shipped = weights.SHIPPED
    names = [n for n in weights.BACKBONES if n.startswith("clip:") and n not in shipped]
    assert names and all(weights._hub_location(weights.require_known(name)) for name in names)


def test_weights_need_a_checksum_and_say_what_to_do() -> None:
    assert "say which: clip:ViT-B-16.openai" in refused("clip:ViT-B-16", None)
    told = refused("clip:ViT-B-16.openai", None)
    assert "timm/vit_base_patch16_clip_224.openai" in told and "--checkpoint" in told
    told = refused("clip:tiny.json", None)
    assert "give --checkpoint FILE (or random)" in told and "say which" not in told


def test_activation_is_that_of_the_weights() -> None:
    from petlbench.backbones import clip

    assert clip._configuration("clip:ViT-B-16.openai")["quick_gelu"]
    assert not clip._configuration("clip:ViT-B-16").get("quick_gelu")


def test_a_configuration_file_is_identified_by_its_content(file: Path) -> None:
    spec = weights.specify("clip:tiny.json", "random")
    assert weights.specify(spec.name, "random") == spec
    assert weights.shape(spec, 32).image_size == (32, 32)
    file.write_text(json.dumps(CONFIGURATION | {"quick_gelu": False}))
    assert weights.specify("clip:tiny.json", "random").name != spec.name
    assert "is not the file that the run was made with" in refused(spec.name)
    file.write_text('{"embed_dim": 3}')
    assert "is not a configuration of open_clip" in refused("clip:tiny.json")
    assert "cannot read" in refused("clip:none.json")
    vision = CONFIGURATION["vision_cfg"] | {"pool_type": "none"}
    file.write_text(json.dumps(CONFIGURATION | {"vision_cfg": vision}))
    assert "no pooled feature" in refused("clip:tiny.json")


def test_normalisation(file: Path) -> None:
    assert weights.normalisation("checkpoint", "clip:tiny.json") == weights.NORMALISATIONS["clip"]
    assert (
        weights.normalisation("checkpoint", "clip:ViT-B-16.openai")
        == weights.NORMALISATIONS["clip"]
    )
    about = {"model_cfg": CONFIGURATION, "preprocess_cfg": {"mean": [0, 0, 0], "std": [1, 1, 1]}}
    file.write_text(json.dumps(about))
    assert weights.normalisation("checkpoint", "clip:tiny.json") == ((0, 0, 0), (1, 1, 1))


@pytest.mark.parametrize("form", ["plain", "openai", "custom"])
@torch.no_grad()
def test_checkpoints_of_any_age(tmp_path: Path, form: str) -> None:
    model = scrambled()
    state = dict(model.state_dict())
    if form == "openai":
        numbers = {"input_resolution": 32, "context_length": 20, "vocab_size": 49408}
        state |= {name: torch.tensor(value) for name, value in numbers.items()}
    if form == "custom":
        kept = ("visual.", "logit_scale")
        state = {n if n.startswith(kept) else f"text.{n}": value for n, value in state.items()}
    torch.save(state, tmp_path / "w.pt")
    spec = weights.specify("clip:tiny.json", "w.pt")
    backbone = weights.build(spec, 32, towers="both")
    backbone.prepare(3, TEXTS)
    assert close(backbone.eval()(images()), zero_shot(model))
    larger = weights.build(spec, 48, towers="both")
    assert larger.shape.blocks[0].grid == (6, 6)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    state = dict(scrambled().state_dict())
    del state["ln_final.bias"]
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "w.safetensors")
    spec = weights.specify("clip:tiny.json", "w.safetensors")
    with pytest.raises(UsageError, match=r"1 missing: ln_final\.bias"):
        weights.build(spec, 32)
    with pytest.raises(UsageError, match="not a multiple of the patch size 8"):
        weights.build(weights.specify("clip:tiny.json", "random"), 36)


# Rules, class names, runs


def request(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    state = scrambled().state_dict()
    save_file({n: t.contiguous() for n, t in state.items()}, tmp_path / "tiny.safetensors")
    settings = {
        "protocol.image_size": 16,
        "protocol.epochs": 1,
        "protocol.warmup_epochs": 0,
        "protocol.drop_path": 0.1,
    }
    given = {
        "tasks": ["digits"],
        "methods": ["lora"],
        "backbone": "clip:tiny.json",
        "checkpoint": "tiny.safetensors",
        "results": "results/clip",
        "jobs": 1,
        "threads": 1,
        "device": "cpu",
        "attention": "explicit",
    }
    return given | changes | {"settings": settings | changes.get("settings", {})}


TEXT_HEAD = {"protocol.head": "text"}
BOTH = TEXT_HEAD | {"protocol.towers": "both"}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        TEXT_HEAD,
        BOTH,
        BOTH | {"protocol.towers": "text"},
        BOTH | {"protocol.precision": "bf16"},
    ],
    ids=["fresh", "text head", "both", "text", "both, bf16"],
)
def test_a_run_from_images_to_the_model_again(tmp_path: Path, settings: dict[str, Any]) -> None:
    asked = request(tmp_path, settings=settings)
    made = plan.make(Request(**asked))
    assert api.run(progress=False, **asked).failed == 0
    ((record,), _) = api.finished("results/clip")
    adapted = load_adapted(record, "results", checkpoint="tiny.safetensors")
    head = record["parameters"]["head"]
    assert head == (0 if "protocol.towers" in settings else 24 * 10 + 10)
    assert record["parameters"]["trainable"] == made.specs[0].method.build().num_trainable(
        made.shape
    )
    split = experiment.load_suite("mini").open_split(
        experiment.load_suite("mini").select(["digits"])[0], "test", None, 0
    )
    pixels = experiment.cache.decode(split, experiment.cache.Geometry(16, "bicubic"))
    predicted = adapted.logits(torch.from_numpy(pixels)).argmax(1)
    correct = int((predicted == torch.from_numpy(split.labels)).sum())
    assert correct == record["test"]["correct"]


def test_the_command(cli: Any, tmp_path: Path) -> None:
    given = request(tmp_path)
    outcome = cli(
        *("run", "--backbone", given["backbone"], "--checkpoint", given["checkpoint"]),
        *("--methods", "linear,bitfit", "--set", "protocol.head=text"),
        small=True,
    )
    assert outcome.code == 0, outcome
    cli("run", "--set", "protocol.head=text", small=True).refused(
        "protocol.head = 'text' is for backbones with a text tower"
    )


def test_rules_about_texts_are_in_the_fingerprint_of_runs_that_have_them(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    def made(**changes: Any) -> Any:
        return plan.make(Request(**request(tmp_path, **changes))).specs[0]

    fresh, text, both = made(), made(settings=TEXT_HEAD), made(settings=BOTH)
    assert len({fresh.fingerprint, text.fingerprint, both.fingerprint}) == 3
    reworded = {"protocol.prompt": "{}!"}
    assert made(settings=TEXT_HEAD | reworded).fingerprint != text.fingerprint
    assert made(settings=reworded).fingerprint == fresh.fingerprint  # nothing reads it
    assert not plan.make(Request(**small)).specs[0].rules.keys() & {"towers", "head", "prompt"}
    assert classification.prompts(text)[0] == "A photo of handwritten zero."
    assert classification.prompts(fresh) == [] and "classes" not in fresh.members


def test_rules_that_do_not_fit_are_refused_before_anything_runs(
    tmp_path: Path, small: dict[str, Any]
) -> None:
    def told(given: dict[str, Any]) -> str:
        with pytest.raises(UsageError) as raised:
            plan.make(Request(**given))
        return str(raised.value)

    towers = {"protocol.towers": "both"}
    assert "set also: --set protocol.head=text" in told(request(tmp_path, settings=towers))
    assert "has none" in told(small | {"settings": small["settings"] | towers})
    linear = request(tmp_path, methods=["linear"], settings=BOTH)
    assert "linear does not fit clip:tiny.json" in told(linear)
    with pytest.raises(UsageError, match=r"must have one \{\}"):
        Protocol("p", prompt="A photo.")


def test_class_names(tmp_path: Path, vtab_root: Path) -> None:
    known = Task("t", "g", 2, {}, class_names=("a", "b"))
    assert class_names(known, None) == ("a", "b")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "classes.txt").write_text("red fox\n\nblue jay \n")
    assert class_names(known, tmp_path) == ("red fox", "blue jay")
    (tmp_path / "t" / "classes.txt").write_text("one\n")
    with pytest.raises(UsageError, match=r"classes\.txt has 1 class names; 2 are needed"):
        class_names(known, tmp_path)
    asked = request(tmp_path, suite="vtab-1k", tasks=["cifar", "dtd"], settings=TEXT_HEAD)
    asked |= {"data_root": str(vtab_root)}
    with pytest.raises(UsageError, match=r"47 classes to .*dtd/classes\.txt, one a line"):
        plan.make(Request(**asked))
    (vtab_root / "dtd" / "classes.txt").write_text("\n".join(f"texture {i}" for i in range(47)))
    specs = {spec.task: spec for spec in plan.make(Request(**asked)).specs}
    assert classification.prompts(specs["dtd"])[46] == "A photo of texture 46."
    assert classification.prompts(specs["cifar"])[41] == "A photo of lawn mower."


def test_suites_name_their_classes() -> None:
    for suite, known in (("mini", None), ("vtab-1k", {"cifar"})):
        for task in experiment.load_suite(suite).tasks:
            if known is None or task.name in known:
                assert len(set(class_names(task, None))) == task.classes


def test_random_weights_serve_to_measure_speed(tmp_path: Path) -> None:
    settings = BOTH | {"protocol.precision": "fp32"}
    asked = request(
        tmp_path, suite="vtab-1k", tasks=["dtd"], settings=settings, checkpoint="random"
    )
    spec = plan.make(Request(**asked), sketch=True).specs[0]
    model = experiment.prepare(spec, Machine("cpu"))
    assert model(torch.zeros(1, 3, 16, 16)).shape == (1, 47)
