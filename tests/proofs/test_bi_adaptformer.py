"""Bi-AdaptFormer, proven."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np
import pytest
import torch
from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from scipy.stats import norm
from torch import Tensor

from petlbench.backbone import stored_tensors
from petlbench.method import load
from petlbench.methods import bi_adaptformer
from petlbench.methods.bi_adaptformer import levels, pack, quantize, unpack
from proofs.common import CLASSES, Times, adapt, assert_uniform, dropped, images, initial, tokens

SETTINGS = [{"hidden": 3, "scale": 0.1}]
MORE = [{}, {"hidden": 8, "bits": 2, "scale": -2.0}, {"bits": 5, "dropout": 0.3}]
COUNTS = [({}, 589_824), ({"hidden": 8}, 147_456), ({"bits": 4}, 589_824)]
SIZE = "hidden"
DROPOUT = 0.1
ADDED = ("mlp.parallel_residual.0.down.weight", "mlp.parallel_residual.0.up.weight")
BAD = [("bits", 0, ">= 1 and <= 8"), ("bits", 9, ">= 1 and <= 8"), ("bits", 1.0, "of type int")]


def level_table(bits: int) -> np.ndarray[Any, Any]:
    """Midpoints of levels, medians of the Gaussian's cells, and again."""
    values = np.zeros(2**bits)
    for _ in range(500):
        cdf = norm.cdf((values[1:] + values[:-1]) / 2)
        values = norm.ppf((np.append(cdf, 1.0) + np.insert(cdf, 0, 0.0)) / 2)
    return values


def few_bits(w: Tensor, bits: int) -> Tensor:
    """mu + sigma * nearest level; the rounding is taken for the identity in the gradient."""
    mu = w.sum() / w.numel()
    sigma = (((w - mu) ** 2).sum() / (w.numel() - 1)).sqrt()
    normal = (w - mu) / (sigma + 1e-5)
    values = torch.from_numpy(level_table(bits))
    nearest = values[(normal.detach()[..., None] - values).abs().argmin(-1)]
    return mu + sigma * (normal + (nearest - normal).detach())


def block(
    p: Params, i: int, x: Tensor, vit: Vit, *, scale: float = 1.0, bits: int = 1, **_: Any
) -> Tensor:
    """The adapter reads x before LN2, as AdaptFormer's does."""
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit)
    down, up = (few_bits(p[f"vit.blocks.{i}.{name}"], bits) for name in ADDED)
    hidden = torch.einsum("bnd,hd->bnh", x, down)
    hidden = hidden * (hidden > 0)
    return x + mlp(p, i, ln2(p, i, x, vit)) + scale * torch.einsum("bnh,dh->bnd", hidden, up)


def test_one_bit_is_the_median_of_half_a_gaussian() -> None:
    assert levels(1) == pytest.approx([-0.674489750196, 0.674489750196], abs=1e-12)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_levels_are_a_fixed_point(bits: int) -> None:
    """Each level splits its cell into two of equal probability."""
    values = np.array(levels(bits))
    bounds = np.concatenate([[-np.inf], (values[1:] + values[:-1]) / 2, [np.inf]])
    left, right = norm.cdf(values) - norm.cdf(bounds[:-1]), norm.cdf(bounds[1:]) - norm.cdf(values)
    np.testing.assert_allclose(left, right, atol=1e-6)
    np.testing.assert_allclose(values, -values[::-1], atol=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(32, 768), (768, 32), (5, 3), (1, 7)])
def test_stored_bytes_give_the_weights_back(bits: int, shape: tuple[int, int]) -> None:
    """Bit for bit what the forward pass computes with, from bits / 8 bytes a weight and 8 more."""
    torch.manual_seed(0)
    weight = 0.02 * torch.randn(shape) + 0.01
    data = pack(weight, bits)
    assert len(data) == math.ceil(weight.numel() * bits / 8) + 8
    assert torch.equal(unpack(data, shape, bits), quantize(weight, bits))
    assert len(quantize(weight, bits).unique()) <= 2**bits


def check_storage(method: str, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """`stored_bytes` is what packing takes; the bytes alone give the same logits."""
    built = cast(Any, load(method)(**config))
    backbone = adapt(method, config).float().eval()
    logits = backbone(images().float())
    stored = stored_tensors(backbone)
    matrices = {name: t for name, t in stored.items() if not name.startswith("head.")}
    data = {name: pack(matrix, built.bits) for name, matrix in matrices.items()}
    head = 4 * (12 * CLASSES + CLASSES)
    assert built.stored_bytes(stored) == sum(map(len, data.values())) + head
    with torch.no_grad():
        for name, matrix in matrices.items():
            matrix.copy_(unpack(data[name], tuple(matrix.shape), built.bits))
    monkeypatch.setattr(bi_adaptformer, "quantize", lambda weight, bits: weight)
    assert torch.equal(backbone(images().float()), logits)


@pytest.mark.parametrize("config", [{}, {"hidden": 3, "bits": 2}])
def test_bi_adaptformer_storage(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    check_storage("bi_adaptformer", config, monkeypatch)


def test_bi_adaptformer_size_on_vit_b() -> None:
    """72.2 KiB beside the head."""
    tensors = {f"{i}": torch.empty(32 * 768, device="meta") for i in range(24)}
    size = load("bi_adaptformer")().stored_bytes(tensors)
    assert size == 589_824 // 8 + 24 * 8 and round(size / 1024, 1) == 72.2


def test_bi_adaptformer_initialisation() -> None:
    """Down as PyTorch has it; Up Gaussian with spread 0.001, none beyond 0.002."""
    found = initial("bi_adaptformer")
    assert_uniform(found["down.weight"], 768**-0.5)
    up = torch.cat(found["up.weight"])
    assert up.abs().max() <= 0.002 and up.std().item() == pytest.approx(0.00088, rel=0.02)


def test_bi_adaptformer_is_outside_drop_path() -> None:
    """A dropped MLP leaves the adapter of the residual stream."""
    branch = dropped("bi_adaptformer", {"scale": 10.0})
    x = tokens()
    torch.testing.assert_close(branch(x), x + branch.parallel_residual[0](x))
    assert not torch.allclose(branch(x), x)


def test_bi_adaptformer_dropout_place() -> None:
    """Between ReLU and Up."""
    module = cast(Any, adapt("bi_adaptformer").blocks[0].mlp.parallel_residual[0])
    module.dropout = Times()
    x, (down, up) = tokens(), (few_bits(m.weight, 1) for m in (module.down, module.up))
    torch.testing.assert_close(module(x), 3 * torch.relu(x @ down.T) @ up.T)
