"""DoRA, proven."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from reference.vit import Params, Vit, ln1, ln2, mhsa, mlp
from torch import Tensor

from proofs.common import adapt, assert_uniform, assert_zero, images, initial, perturb

SETTINGS = [{"rank": 2, "alpha": 5.0}]
MORE = [{}, {"rank": 16, "alpha": 1.0}]
COUNTS = [({}, 313_344)]
SIZE = "rank"
ADDED = tuple(f"attn.layer.qkv.weights.0.{t}.{n}" for t in "qv" for n in ("a", "b", "magnitude"))
BAD = [
    ("alpha", 0, "> 0"),
    ("alpha", -1.0, "> 0"),
    ("alpha", float("nan"), "finite"),
    ("alpha", float("inf"), "finite"),
]


def block(
    p: Params, i: int, x: Tensor, vit: Vit, *, rank: int = 8, alpha: float = 8.0, **_: Any
) -> Tensor:
    """Row o of q and v: m_o V_o / |V_o|, where the gradient takes |V_o| for a constant."""
    name = f"vit.blocks.{i}.attn.layer.qkv"
    thirds = list(p[f"{name}.weight"].chunk(3))
    for third, letter in ((0, "q"), (2, "v")):
        own = f"{name}.weights.0.{letter}"
        v = thirds[third] + alpha / rank * torch.einsum("or,ri->oi", p[f"{own}.b"], p[f"{own}.a"])
        length = (v * v).sum(1).sqrt().detach()
        thirds[third] = torch.einsum("o,oi->oi", p[f"{own}.magnitude"][:, 0] / length, v)
    x = x + mhsa(p, i, ln1(p, i, x, vit), vit, qkv=torch.cat(thirds))
    return x + mlp(p, i, ln2(p, i, x, vit))


def test_dora_initialisation() -> None:
    found = initial("dora")
    for t in "qv":
        assert_uniform(found[f"{t}.a"], 768**-0.5)
        assert_zero(found[f"{t}.b"])
        assert found[f"{t}.magnitude"][0].shape == (768, 1)  # one length per output
    assert not torch.equal(found["q.a"][0], found["v.a"][0])  # q and v do not share A


def test_dora_starts_at_the_lengths_of_the_rows() -> None:
    qkv: Any = adapt("dora").blocks[0].linear("qkv")
    for module, rows in ((qkv.weights[0].q, qkv.weight[:12]), (qkv.weights[0].v, qkv.weight[24:])):
        torch.testing.assert_close(
            module.magnitude[:, 0], (rows**2).sum(1).sqrt(), rtol=1e-6, atol=0
        )


def test_dora_leaves_the_key_alone() -> None:
    backbone = adapt("dora")
    perturb(backbone)
    qkv = backbone.blocks[0].linear("qkv")
    weight, bias = qkv.effective()
    assert torch.equal(weight[12:24], qkv.weight[12:24]) and bias is qkv.bias


def test_dora_trains_lengths_as_lengths() -> None:
    """Whatever A and B are, row o of W' is m_o long."""
    backbone = adapt("dora")
    perturb(backbone)
    qkv: Any = backbone.blocks[0].linear("qkv")
    rows = qkv.effective()[0][:12]
    torch.testing.assert_close(rows.norm(dim=1), qkv.weights[0].q.magnitude[:, 0].abs())


@pytest.mark.parametrize("row", [0, 30])
def test_dora_survives_a_row_of_zeros(row: int) -> None:
    """A dead output of the pre-trained model has no direction; it must not turn into NaN."""
    backbone = adapt("dora")
    with torch.no_grad():
        backbone.blocks[0].linear("qkv").weight[row] = 0
    assert backbone(images()).isfinite().all()
