"""Checkpoints are loaded completely or refused, naming what does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from petlbench import weights
from petlbench.errors import UsageError
from petlbench.weights import BackboneSpec

State = dict[str, Tensor]
NAME = "test_vit"  # timm's tiny ViT: patch 16, width 64, depth 6


def scramble(model: nn.Module) -> nn.Module:
    """Random values in every parameter, so that no two could be exchanged unnoticed."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape))
    return model.eval()


def tiny(**changes: Any) -> VisionTransformer:
    shape: dict[str, Any] = dict(img_size=16, patch_size=4, embed_dim=12, depth=2, num_heads=3)
    return VisionTransformer(**(shape | {"num_classes": 0} | changes))


@pytest.fixture
def state() -> State:
    torch.manual_seed(0)
    return dict(scramble(weights.create(NAME, 32)).state_dict())


@pytest.fixture
def save(tmp_path: Path) -> Callable[[State], Path]:
    def write(state: State) -> Path:
        save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "w.safetensors")
        return tmp_path / "w.safetensors"

    return write


def images(size: int = 16) -> Tensor:
    return torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(0))


def refusal(file: Path, name: str = NAME, size: int = 32) -> str:
    with pytest.raises(UsageError) as raised:
        weights.build(weights.specify(name, str(file)), size)
    return str(raised.value)


# Every format


@pytest.mark.parametrize("form", ["safetensors", "pth", "pt", "bin", "model", "state_dict", "ddp"])
def test_every_format_gives_the_same_model(tmp_path: Path, state: State, form: str) -> None:
    wrapped: dict[str, Any] = {
        "model": {"model": state, "epoch": 3},
        "state_dict": {"state_dict": state, "optimizer": {"lr": 0.1}},
        "ddp": {f"module.{key}": value for key, value in state.items()},
    }
    file = tmp_path / f"w.{'pth' if form in wrapped else form}"
    save_file(state, file) if form == "safetensors" else torch.save(wrapped.get(form, state), file)
    spec = weights.specify(NAME, str(file))
    assert spec == BackboneSpec(NAME, weights.sha256(file), str(file))
    plain = weights.create(NAME, 32).eval()
    plain.load_state_dict(state)
    with torch.no_grad():
        expected = plain(images(32))
        assert torch.equal(weights.build(spec, 32).eval()(images(32)), expected)


def test_half_precision_files_become_single(state: State, save: Callable[[State], Path]) -> None:
    file = save({key: value.half() for key, value in state.items()})
    model = weights.create(NAME, 32)
    weights.load_checkpoint(model, file)
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32 and torch.equal(value, state[key].half().float())


def test_a_relative_path_is_remembered_as_absolute(
    state: State, save: Callable[[State], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(state)
    monkeypatch.chdir(file.parent)
    assert weights.specify(NAME, "w.safetensors").path == str(file)


def google_arrays(model: VisionTransformer, heads: int) -> dict[str, np.ndarray]:
    """The names and layouts of Google's JAX checkpoints, from a timm model."""
    s = {key: value.numpy() for key, value in model.state_dict().items()}
    dim = s["cls_token"].shape[-1]
    arrays = {
        "cls": s["cls_token"],
        "Transformer/posembed_input/pos_embedding": s["pos_embed"],
        "embedding/kernel": s["patch_embed.proj.weight"].transpose(2, 3, 1, 0),  # HWIO
        "embedding/bias": s["patch_embed.proj.bias"],
        "Transformer/encoder_norm/scale": s["norm.weight"],
        "Transformer/encoder_norm/bias": s["norm.bias"],
        "head/kernel": np.ones((dim, 7), np.float32),
        "head/bias": np.zeros(7, np.float32),
        "pre_logits/kernel": np.ones((dim, dim), np.float32),
        "pre_logits/bias": np.zeros(dim, np.float32),
    }
    for i in range(len(model.blocks)):
        source, block = f"blocks.{i}", f"Transformer/encoderblock_{i}"
        for ours, theirs in (("norm1", "LayerNorm_0"), ("norm2", "LayerNorm_2")):
            arrays[f"{block}/{theirs}/scale"] = s[f"{source}.{ours}.weight"]
            arrays[f"{block}/{theirs}/bias"] = s[f"{source}.{ours}.bias"]
        for ours, theirs in (("fc1", "Dense_0"), ("fc2", "Dense_1")):
            arrays[f"{block}/MlpBlock_3/{theirs}/kernel"] = s[f"{source}.mlp.{ours}.weight"].T
            arrays[f"{block}/MlpBlock_3/{theirs}/bias"] = s[f"{source}.mlp.{ours}.bias"]
        attention = f"{block}/MultiHeadDotProductAttention_1"
        parts = s[f"{source}.attn.qkv.weight"].reshape(3, dim, dim)
        biases = s[f"{source}.attn.qkv.bias"].reshape(3, dim)
        for part, weight, bias in zip(("query", "key", "value"), parts, biases, strict=True):
            arrays[f"{attention}/{part}/kernel"] = weight.T.reshape(dim, heads, dim // heads)
            arrays[f"{attention}/{part}/bias"] = bias.reshape(heads, dim // heads)
        out = s[f"{source}.attn.proj.weight"].T.reshape(heads, dim // heads, dim)
        arrays[f"{attention}/out/kernel"] = out
        arrays[f"{attention}/out/bias"] = s[f"{source}.attn.proj.bias"]
    return arrays


@pytest.mark.parametrize("depth", [2, 11])
@pytest.mark.parametrize("prefix", ["", "opt/target/"])
def test_google_checkpoints(tmp_path: Path, prefix: str, depth: int) -> None:
    torch.manual_seed(0)
    model = scramble(tiny(depth=depth))
    assert isinstance(model, VisionTransformer)
    arrays = google_arrays(model, heads=3)
    np.savez(tmp_path / "ViT.npz", **{prefix + key: value for key, value in arrays.items()})
    loaded = tiny(depth=depth).eval()
    left_out = weights.load_checkpoint(loaded, tmp_path / "ViT.npz")
    assert left_out == ["head.bias", "head.weight", "pre_logits.bias", "pre_logits.weight"]
    with torch.no_grad():
        assert torch.equal(loaded(images()), model(images()))


def test_google_checkpoints_agree_with_timms_own_reader(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = scramble(tiny())
    assert isinstance(model, VisionTransformer)
    arrays = google_arrays(model, heads=3)
    np.savez(tmp_path / "ViT.npz", **arrays)
    ours, theirs = tiny(), tiny()
    weights.load_checkpoint(ours, tmp_path / "ViT.npz")
    theirs.load_pretrained(str(tmp_path / "ViT.npz"))
    for key, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[key], value, atol=1e-6), key


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda arrays: arrays.pop("cls"), "is not a Google ViT checkpoint: no array 'cls'; it h"),
        (
            lambda arrays: arrays.pop("Transformer/encoderblock_1/LayerNorm_2/bias"),
            "no array 'Transformer/encoderblock_1/LayerNorm_2/bias'",
        ),
        (lambda arrays: arrays.update(extra=np.zeros(3)), "1 unexpected: extra"),
        (lambda arrays: arrays.update(cls=np.zeros((1, 1, 24))), "width is 24, the backbone's is"),
        (lambda arrays: arrays.clear(), "is not a Google ViT checkpoint"),
    ],
    ids=["cls", "norm", "extra", "width", "empty"],
)
def test_an_incomplete_google_checkpoint_is_refused(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], Any], message: str
) -> None:
    arrays = google_arrays(tiny(), heads=3)
    change(arrays)
    np.savez(tmp_path / "ViT.npz", **arrays)
    with pytest.raises(UsageError) as raised:
        weights.load_checkpoint(tiny(), tmp_path / "ViT.npz")
    assert message in str(raised.value)


def test_a_google_checkpoint_of_another_depth_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "ViT.npz", **google_arrays(tiny(depth=2), heads=3))
    for depth, word in ((3, "12 missing: blocks.2."), (1, "12 unexpected: blocks.1.")):
        with pytest.raises(UsageError, match=word):
            weights.load_checkpoint(tiny(depth=depth), tmp_path / "ViT.npz")


# Sizes


def test_position_embeddings_are_resampled(state: State, save: Callable[[State], Path]) -> None:
    model = weights.create(NAME, 64)
    assert weights.load_checkpoint(model, save(state)) == []
    expected = resample_abs_pos_embed(state["pos_embed"], new_size=[4, 4], num_prefix_tokens=1)
    assert torch.equal(model.pos_embed, expected)
    assert torch.equal(model.pos_embed[:, 0], state["pos_embed"][:, 0])  # [cls] has no place


@pytest.mark.parametrize(("size", "near"), [(40, 32), (33, 32), (8, 16), (63, 64)])
def test_an_image_size_must_be_a_multiple_of_the_patch(size: int, near: int) -> None:
    with pytest.raises(UsageError) as raised:
        weights.build(BackboneSpec(NAME, weights.RANDOM), size)
    assert f"--image-size {size} is not a multiple of the patch size 16" in str(raised.value)
    assert str(raised.value).endswith(f"the nearest that is: {near}.")


def test_another_patch_size_is_named(state: State, save: Callable[[State], Path]) -> None:
    state["patch_embed.proj.weight"] = torch.zeros(64, 3, 14, 14)
    told = refusal(save(state))
    assert "patch_embed.proj.weight is [64, 3, 14, 14], the backbone's is [64, 3, 16, 16]" in told


# What does not fit


def test_missing_unexpected_and_misshapen_tensors_are_named(
    state: State, save: Callable[[State], Path]
) -> None:
    for key in ("blocks.5.norm1.bias", "blocks.5.norm1.weight", "norm.bias", "norm.weight"):
        del state[key]
    state["teacher.temperature"] = torch.ones(1)
    state["blocks.0.mlp.fc1.weight"] = torch.zeros(10, 64)
    told = refusal(save(state))
    assert told == (
        "w.safetensors does not fit this backbone: 4 missing: blocks.5.norm1.bias, "
        "blocks.5.norm1.weight, norm.bias, ...; 1 unexpected: teacher.temperature; 1 of another "
        "shape: blocks.0.mlp.fc1.weight [10, 64] instead of [192, 64]."
    ).replace("[192, 64]", str(list(weights.create(NAME, 32).blocks[0].mlp.fc1.weight.shape)))


@pytest.mark.parametrize("other", ["vit_mini", "test_vit2", "test_vit3"])
def test_another_architecture_is_refused(other: str, save: Callable[[State], Path]) -> None:
    told = refusal(save(weights.create(other, 32).state_dict()))
    assert "does not fit this backbone: " in told and len(told) < 500


def test_classifiers_are_left_out_and_reported(state: State, save: Callable[[State], Path]) -> None:
    state |= {"head.weight": torch.zeros(7, 64), "head.bias": torch.zeros(7)}
    state |= {"mask_token": torch.zeros(1, 64), "fc.weight": torch.zeros(7, 64)}
    left_out = weights.load_checkpoint(weights.create(NAME, 32), save(state))
    assert left_out == ["fc.weight", "head.bias", "head.weight", "mask_token"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pth", ".pt"])
@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04garbage", b"\x80\x04garbage"])
def test_a_corrupt_file_is_refused(tmp_path: Path, suffix: str, content: bytes) -> None:
    file = tmp_path / f"w{suffix}"
    file.write_bytes(content)
    told = refusal(file)
    assert str(file) in told and len(told.splitlines()) == 1


def test_a_truncated_file_is_refused(state: State, save: Callable[[State], Path]) -> None:
    file = save(state)
    file.write_bytes(file.read_bytes()[:-1000])
    assert "cannot be read as a checkpoint" in refusal(file)


class Malicious:
    """Unpickled, it would write a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("where", ["alone", "beside"])
def test_code_in_a_pickle_is_not_run(tmp_path: Path, state: State, where: str) -> None:
    file, target = tmp_path / "w.pth", tmp_path / "pwned"
    code = Malicious(target)
    torch.save(code if where == "alone" else {"model": state, "code": code}, file)
    assert "cannot be read as a checkpoint" in refusal(file)
    assert not target.exists()


def test_pickled_arrays_in_npz_are_not_loaded(tmp_path: Path) -> None:
    target = tmp_path / "pwned"
    np.savez(tmp_path / "w.npz", cls=np.array([Malicious(target)], dtype=object))
    assert "cannot be read as a checkpoint" in refusal(tmp_path / "w.npz")
    assert not target.exists()


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        torch.zeros(3),
        {"a": 1},
        {"model": "vit_base", "state_dict": {}},
        {"model": torch.zeros(3)},
        {"state_dict": None},
        {1: torch.zeros(3)},
        {},
    ],
    ids=str,
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, content: Any) -> None:
    file = tmp_path / "w.pth"
    torch.save(content, file)
    told = refusal(file)
    assert "w.pth" in told and len(told) < 500


def test_the_state_dict_is_found_beside_a_models_name(tmp_path: Path, state: State) -> None:
    torch.save({"model": "vit_base", "state_dict": state}, tmp_path / "w.pth")
    assert weights.load_checkpoint(weights.create(NAME, 32), tmp_path / "w.pth") == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("absent.pth", "no checkpoint file at "),
        (".", "no checkpoint file at "),
        ("w.h5", "w.h5: a checkpoint is one of .safetensors, .npz, .pth"),
    ],
)
def test_a_path_that_cannot_be_a_checkpoint(tmp_path: Path, path: str, message: str) -> None:
    (tmp_path / "w.h5").touch()
    with pytest.raises(UsageError) as raised:
        weights.specify(NAME, str(tmp_path / path))
    assert message in str(raised.value)


def test_a_file_changed_since_planning_is_refused(
    state: State, save: Callable[[State], Path]
) -> None:
    spec = weights.specify(NAME, str(save(state)))
    save(state | {"norm.bias": torch.ones(64)})
    with pytest.raises(UsageError, match=f"is not the file with SHA-256 {spec.checkpoint[:12]}"):
        weights.build(spec, 32)


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vit_smal_patch14_dinov2", "Did you mean vit_small_patch14_dinov2"),
        ("vit_min", "Did you mean vit_mini"),
        ("VIT_MINI", "Did you mean vit_mini"),
        ("qqqqqqqq", "See: petlbench list backbones"),
        ("vit_base_patch16_224.orig_in22k", "Did you mean orig_in21k"),
    ],
)
def test_an_unknown_backbone_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        weights.specify(name, weights.RANDOM)
    assert str(raised.value).startswith("unknown ")
    assert message in str(raised.value)
    assert len(str(raised.value)) < 500


def test_a_backbone_that_cannot_stay_frozen_is_refused() -> None:
    with pytest.raises(UsageError, match=r"resnet10t: .*BatchNorm statistics"):
        weights.build(weights.specify("resnet10t", weights.RANDOM), 224)


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("vit_tiny_patch16_224", "ViT"),
        ("swin_tiny_patch4_window7_224", "Swin"),
        ("convnext_atto", "ConvNeXt"),
        ("deit_tiny_distilled_patch16_224", "VisionTransformerDistilled"),
    ],
)
def test_families(name: str, family: str) -> None:
    spec = weights.specify(name, weights.RANDOM)
    assert weights.shape(spec, 224).family == family


def test_random_weights_need_no_file() -> None:
    spec = weights.specify("vit_mini", "random")
    assert spec == BackboneSpec("vit_mini", "random", None)
    model = weights.build(spec, 16, drop_path=0.2)
    assert model.shape.blocks[0].grid == (2, 2)
    assert [round(b.attn.drop_path_rate, 2) for b in model.blocks][-1] == 0.2


def test_normalisation_is_the_checkpoints_own() -> None:
    assert weights.normalisation("checkpoint", "vit_mini") == weights.NORMALISATIONS["half"]
    clip = weights.normalisation("checkpoint", "vit_base_patch16_clip_quickgelu_224.openai")
    assert clip == weights.NORMALISATIONS["clip"]
    in21k = weights.normalisation("checkpoint", "vit_base_patch16_224.orig_in21k")
    assert in21k == weights.NORMALISATIONS["half"]
    assert weights.normalisation("imagenet", "vit_mini") == weights.NORMALISATIONS["imagenet"]


@pytest.mark.parametrize(
    "name", [n for n in weights.BACKBONES if n != weights.EMBEDDED and ":" not in n]
)
def test_listed_backbones_exist(name: str) -> None:
    weights.require_known(name)
    assert timm.get_pretrained_cfg(name) is not None
    repository, file = weights._hub_location(name)
    assert repository.count("/") == 1 and not repository.endswith("/")
    assert Path(file).suffix in weights.READERS


# The hub


class Hub:
    """A hub that answers with one file and counts what it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, file: Path, digest: str | None) -> None:
        self.file, self.cached, self.asked = file, False, 0
        lfs = SimpleNamespace(sha256=digest) if digest else None
        siblings = [SimpleNamespace(rfilename="README.md", lfs=None)]
        siblings.append(SimpleNamespace(rfilename="model.safetensors", lfs=lfs))
        self.info = SimpleNamespace(siblings=siblings)
        monkeypatch.setattr(huggingface_hub, "HfApi", lambda: self)
        monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", self.look)
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", self.download)

    def look(self, repository: str, file: str) -> str | None:
        return str(self.file) if self.cached else None

    def model_info(self, repository: str, **_: Any) -> Any:
        assert repository == "timm/test_vit.r160_in1k"
        self.asked += 1
        return self.info

    def download(self, repository: str, file: str) -> str:
        self.cached = True
        return str(self.file)


def test_the_hub_is_asked_for_the_checksum_first(
    state: State, save: Callable[[State], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(state)
    hub = Hub(monkeypatch, file, weights.sha256(file))
    spec = weights.specify(NAME)
    assert spec == BackboneSpec(NAME, weights.sha256(file), None)
    assert not hub.cached  # nothing is downloaded to make a plan
    model = weights.build(spec, 32)
    assert torch.equal(model.vit.norm.bias, state["norm.bias"])
    assert weights.specify(NAME) == spec  # now from the cache
    assert hub.asked == 1


def test_a_download_that_is_not_the_published_file_is_refused(
    state: State, save: Callable[[State], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = save(state)
    Hub(monkeypatch, file, "ab" * 32)
    with pytest.raises(UsageError, match=r"is not the file with SHA-256 abababababab\.\.\."):
        weights.build(weights.specify(NAME), 32)


def test_a_file_without_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Hub(monkeypatch, tmp_path, None)
    with pytest.raises(UsageError, match="publishes no checksum"):
        weights.specify(NAME)


@pytest.mark.parametrize("name", [NAME, "vit_base_patch16_224.orig_in21k"])
def test_offline_the_message_says_what_to_do(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    with pytest.raises(UsageError) as raised:
        weights.specify(name)
    told = str(raised.value)
    assert f"the weights of {name} are not on this machine" in told
    assert "--checkpoint FILE.safetensors|.npz|.pth" in told and len(told.splitlines()) == 1


def test_a_failing_download_is_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> str:
        raise ConnectionError("no route\nto host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fail)
    with pytest.raises(UsageError, match=r"cannot download model\.safetensors of timm/test_vit"):
        weights.build(BackboneSpec(NAME, "ab" * 32), 32)


def test_a_backbone_without_published_weights_needs_a_file() -> None:
    with pytest.raises(UsageError, match="--checkpoint FILE"):
        weights.specify("vit_base_patch16_rpn_224")
