"""SCT, proven."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from torch import Tensor

from petlbench.backbone import stored_tensors
from petlbench.method import load
from proofs.common import adapt, assert_zero, initial, tokens

SETTINGS = [{"channels": 3, "scale": 0.5}]
MORE = [{}, {"channels": 1}, {"channels": 7, "scale": -2.0}]
COUNTS = [({}, 111_744), ({"channels": 1000}, 12 * (768 * 768 + 768))]
SIZE = "channels"
ADDED = ("attn.out.0.linear.weight", "attn.out.0.linear.bias")


def block(p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, **_: Any) -> Tensor:
    """Selection and return of channels as a matrix of zeros and ones."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    name = f"vit.blocks.{i}.attn.out.0"
    select = torch.eye(x.shape[-1], dtype=x.dtype)[p[f"{name}.index"]]  # (K, D)
    change = p[f"{name}.linear.weight"] @ select
    x = x + scale * (x @ change.T + p[f"{name}.linear.bias"]) @ select
    return x + mlp(p, i, ln2(p, i, x, vit))


def pictures(number: int = 13) -> tuple[Tensor, Tensor]:
    """Training images of two of three classes, unequally many."""
    generator = torch.Generator().manual_seed(5)
    pixels = torch.randn(number, 3, 12, 8, generator=generator, dtype=torch.float64)
    labels = torch.where(torch.arange(number) < 3, 2, 0)
    return pixels * (1 + labels[:, None, None, None]), labels


@pytest.mark.parametrize("prefix", [1, 3])
def test_sct_takes_the_channels_of_largest_class_aware_importance(prefix: int) -> None:
    """Mean over classes of the norm over a class's images and patches, [cls] and registers left
    out, of the stream that the frozen backbone alone makes; however images are batched."""
    options = {"reg_tokens": prefix - 1, "drop_path_rate": 0.5, "init_values": 0.1}
    pixels, labels = pictures()
    plain = adapt("linear", **options).eval()
    x, expected = plain.embed(pixels), []
    with torch.no_grad():
        for block in plain.blocks:
            stream = block.attn(x)[:, prefix:]
            norms = [stream[labels == c].pow(2).sum((0, 1)).sqrt() for c in (0, 2)]
            importance = (norms[0] + norms[1]) / 2
            expected.append(sorted(importance.argsort(descending=True)[:5].tolist()))
            x, _ = block(x)
    for size in (13, 4):
        backbone = adapt("sct", {"channels": 5}, **options).train()
        parts = zip(pixels.split(size), labels.split(size), strict=True)
        load("sct")(channels=5).calibrate(backbone, lambda _, parts=parts: parts)
        found = [cast(Any, block.attn.out[0]).index.tolist() for block in backbone.blocks]
        assert found == expected
        assert backbone.training and not any(module._forward_hooks for module in backbone.modules())
    assert expected[0] != [0, 1, 2, 3, 4]


def test_sct_stores_the_channels() -> None:
    names = stored_tensors(adapt("sct", {"channels": 5}))
    assert {"vit.blocks.0.attn.out.0.index", "vit.blocks.1.attn.out.0.index"} < names.keys()


def test_sct_initialisation() -> None:
    """Gaussian with spread 0.02, so that it is no identity; biases zero."""
    found = initial("sct")
    assert_zero(found["linear.bias"])
    weights = torch.cat(found["linear.weight"])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    assert weights.abs().max() > 0.05  # the truncation, at 2, is far away


def test_sct_acts_after_a_dropped_branch() -> None:
    """On the residual stream: it is outside drop-path, and other channels stay."""
    backbone = adapt("sct", {"channels": 5}, drop_path_rate=0.4)
    branch = cast(Any, backbone.blocks[1].attn.train())
    branch.drop_path.drop_prob = 1.0
    x, module = tokens(), branch.out[0]
    changed = (branch(x) - x).abs().amax((0, 1)) > 0
    assert changed.nonzero().flatten().tolist() == module.index.tolist()
