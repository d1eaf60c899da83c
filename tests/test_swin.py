"""Swin with sites is timm's model, and prompts join every window as VPT has it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import timm
import torch
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from petlbench import weights
from petlbench.backbone import Backbone
from petlbench.backbones import adopt
from petlbench.backbones.swin import Swin, Windows
from petlbench.errors import UsageError
from petlbench.method import load

TINY: dict[str, Any] = {
    "patch_size": 2,
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (2, 4),
    "drop_path_rate": 0.0,
    "num_classes": 5,
}
MODELS: dict[str, dict[str, Any]] = {
    "shifted windows": {"img_size": 32, "window_size": 4},
    "padded windows": {"img_size": (20, 28), "window_size": 3},
    "one window": {"img_size": 8, "window_size": 4},
    "no biases": {"img_size": 32, "window_size": 4, "qkv_bias": False},
}


def swin(**options: Any) -> SwinTransformer:
    """At random weights, position biases and LayerNorms included."""
    torch.manual_seed(0)
    model = SwinTransformer(**TINY | options).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.3)
    return model


def images(model: SwinTransformer, number: int = 3) -> Tensor:
    size = model.patch_embed.img_size
    generator = torch.Generator().manual_seed(1)
    return torch.randn(number, 3, *size, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("model", MODELS)
def test_features_are_timms(model: str) -> None:
    original = swin(**MODELS[model])
    backbone = adopt(copy.deepcopy(original)).eval()
    assert isinstance(backbone, Swin)
    expected = original.forward_head(original.forward_features(images(original)), pre_logits=True)
    torch.testing.assert_close(backbone.encode(images(original)), expected, rtol=0, atol=1e-12)


def test_facts() -> None:
    shape = adopt(swin(**MODELS["shifted windows"])).shape
    assert [block.dim for block in shape.blocks] == [8, 8, 16, 16]
    assert [block.grid for block in shape.blocks] == [(16, 16), (16, 16), (8, 8), (8, 8)]
    assert [block.attended for block in shape.blocks] == [16] * 4
    assert all(block.windowed and not block.num_prefix_tokens for block in shape.blocks)
    assert not shape.uniform and shape.num_features == 16
    assert shape.blocks[2].linears["qkv"] == (16, 48)
    plain = SwinTransformer(**TINY | MODELS["shifted windows"] | {"num_classes": 0})
    assert shape.num_parameters == sum(p.numel() for p in plain.parameters())


def test_export_has_timms_names() -> None:
    original = swin(**MODELS["shifted windows"])
    backbone = adopt(copy.deepcopy(original))
    backbone.prepare(5)
    backbone.double()
    again = SwinTransformer(**TINY | MODELS["shifted windows"]).double().eval()
    again.load_state_dict(backbone.export(), strict=True)
    expected = backbone.eval()(images(original))
    torch.testing.assert_close(again(images(original)), expected, rtol=0, atol=1e-12)


def windows_with_prompts(windows: Windows, u: Tensor, prompts: int) -> Tensor:
    """One image, one head and one window at a time, from the formula."""
    attn, (rows, columns), (height, width) = windows.attn, windows.grid, windows.window
    front, grid = u[:prompts], u[prompts:].reshape(rows, columns, -1)
    out, of_front, count = torch.zeros_like(grid), torch.zeros_like(front), 0
    dim, heads = u.shape[1], attn.num_heads
    table = attn.relative_position_bias_table
    for top in range(0, rows, height):
        for left in range(0, columns, width):
            # a shifted window takes its tokens from beyond the border, and masks them apart
            places = [
                ((top + y + windows.shift[0]) % rows, (left + x + windows.shift[1]) % columns)
                for y in range(height)
                for x in range(width)
            ]
            wrapped = [
                (top + y + windows.shift[0] >= rows, left + x + windows.shift[1] >= columns)
                for y in range(height)
                for x in range(width)
            ]
            z = torch.cat([front, torch.stack([grid[r, c] for r, c in places])])
            qkv = z @ attn.qkv.weight.T + attn.qkv.bias
            outputs = []
            for head in range(heads):
                part = slice(head * dim // heads, (head + 1) * dim // heads)
                q, k, v = (qkv[:, third * dim : (third + 1) * dim][:, part] for third in range(3))
                scores = q @ k.T / (dim // heads) ** 0.5
                for i in range(height * width):
                    for j in range(height * width):
                        dy, dx = i // width - j // width, i % width - j % width
                        index = (dy + height - 1) * (2 * width - 1) + dx + width - 1
                        bias = table[index, head] + (-100 if wrapped[i] != wrapped[j] else 0)
                        scores[prompts + i, prompts + j] = scores[prompts + i, prompts + j] + bias
                outputs.append(scores.softmax(-1) @ v)
            y = torch.cat(outputs, dim=1) @ attn.proj.weight.T + attn.proj.bias
            of_front, count = of_front + y[:prompts], count + 1
            for token, (r, c) in zip(y[prompts:], places, strict=True):
                out[r, c] = token
    return torch.cat([of_front / count, out.flatten(0, 1)])


@pytest.mark.parametrize("prompts", [0, 2])
@pytest.mark.parametrize("number", [0, 1], ids=["plain", "shifted"])
def test_prompts_join_every_window(number: int, prompts: int) -> None:
    backbone = adopt(swin(img_size=16, window_size=4)).double().eval()
    windows = backbone.blocks[number].attn.layer
    assert isinstance(windows, Windows) and any(windows.shift) == bool(number)
    u = torch.randn(2, prompts + 64, 8, dtype=torch.float64)
    expected = torch.stack([windows_with_prompts(windows, one, prompts) for one in u])
    torch.testing.assert_close(windows(u), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("method", ["vpt", "vpt_shallow"])
def test_prompts_change_the_output_and_train(method: str) -> None:
    backbone = adopt(swin(**MODELS["shifted windows"]))
    plain = adopt(swin(**MODELS["shifted windows"])).eval()
    backbone.prepare(3)
    load(method)(tokens=2).attach(backbone)
    backbone.double().eval()
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    assert not torch.allclose(backbone.encode(pixels), plain.encode(pixels))
    backbone(pixels).sum().backward()
    prompts = [p for n, p in backbone.named_parameters() if "prompts" in n]
    assert len(prompts) == (4 if method == "vpt" else 1)
    assert all(p.grad is not None and p.grad.any() for p in prompts)


def test_merging_takes_a_prompt_for_four() -> None:
    backbone = adopt(swin(**MODELS["shifted windows"])).double()
    entry: Any = backbone.blocks[2].entry
    x = torch.randn(2, 3 + 256, 8, dtype=torch.float64)
    y = entry(x)
    assert y.shape == (2, 3 + 64, 16)
    merging = entry.merging
    expected = merging.reduction(merging.norm(torch.cat([x[:, 1]] * 4, dim=-1)))
    torch.testing.assert_close(y[:, 1], expected)
    torch.testing.assert_close(y[:, 3:], entry(x[:, 3:]))


@pytest.mark.parametrize("training", [False, True])
def test_frozen_front(training: bool) -> None:
    """Stages up to the first trainable block give what the whole gives."""
    backbone: Backbone = adopt(swin(**MODELS["shifted windows"]))
    backbone.prepare(3)
    backbone.double().train(training)
    backbone.blocks[2].mlp.linear("fc1").requires_grad_(True)
    assert backbone.frozen_stages() == 3  # embedding and two blocks
    pixels = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    front = backbone.encode(pixels, stop=3)
    torch.testing.assert_close(backbone.encode(front, 3), backbone.encode(pixels))


def test_a_checkpoint_of_timm(tmp_path: Any) -> None:
    """Windows, masks and position indices are right after loading, though no file has them."""
    name = "swin_tiny_patch4_window7_224"
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=7).eval()
    torch.save(model.state_dict(), tmp_path / "swin.pth")
    spec = weights.specify(name, str(tmp_path / "swin.pth"))
    backbone = weights.build(spec, 224)
    assert backbone.left_out == ["head.fc.bias", "head.fc.weight"]
    pixels = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        expected = model.forward_head(model.forward_features(pixels), pre_logits=True)
        torch.testing.assert_close(backbone.eval().encode(pixels), expected, rtol=1e-4, atol=1e-5)


def test_an_image_size_that_does_not_divide() -> None:
    with pytest.raises(UsageError, match="not a multiple of the patch size 4"):
        weights.shape(weights.specify("swin_tiny_patch4_window7_224", weights.RANDOM), 98)
