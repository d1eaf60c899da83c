"""What a model takes in use, against closed forms."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import petlbench
from petlbench import costs, method, weights
from petlbench.backbone import Backbone, trained_parameters
from petlbench.store import Store
from petlbench.weights import RANDOM, BackboneSpec

SIZE = 48


def model(name: str = "") -> Backbone:
    made: Backbone = weights.build(BackboneSpec("vit_mini", RANDOM), SIZE)
    made.prepare(10)
    if name:
        method.load(name)().attach(made)
    return made


def test_operations_of_an_adapter() -> None:
    """Two matrices of D x r for every token of every block, two operations for a multiply-add."""
    plain, adapted = costs.of_inference(model(), SIZE), model("adapter")
    shape = adapted.shape
    tokens = shape.blocks[0].grid[0] * shape.blocks[0].grid[1] + shape.blocks[0].num_prefix_tokens
    hidden = method.load("adapter")().hidden  # type: ignore[attr-defined]
    expected = sum(2 * 2 * block.dim * hidden * tokens for block in shape.blocks)
    found = costs.of_inference(adapted, SIZE)
    assert found["flops"] - plain["flops"] == expected
    assert found["parameters"] - plain["parameters"] == method.load("adapter")().num_trainable(
        shape
    )


def test_what_trains_in_place_is_not_added() -> None:
    plain, adapted = model(), model("houlsby")
    known = dict(plain.named_parameters())
    trained = {n: p for n, p in trained_parameters(adapted).items() if not n.startswith("head.")}
    added = sum(p.numel() for name, p in trained.items() if name not in known)
    of = [costs.of_inference(each, SIZE) for each in (plain, adapted)]
    assert 0 < added < sum(p.numel() for p in trained.values())
    assert of[1]["parameters"] - of[0]["parameters"] == added
    assert costs.of_inference(model("bitfit"), SIZE) == of[0]


@pytest.mark.parametrize("fused", [False, True])
def test_counting_leaves_the_model_as_it_was(fused: bool) -> None:
    made = model("vpt").train()
    made.use_fused_attention(fused)
    made.store_frozen(torch.bfloat16)
    trained = set(trained_parameters(made))
    first = costs.of_inference(made, SIZE)
    assert costs.of_inference(made, SIZE) == first
    assert made.training and set(trained_parameters(made)) == trained
    kinds = {m.fused_attn for m in made.modules() if hasattr(m, "fused_attn")}
    assert kinds == {fused}


def test_bytes_that_tasks_share() -> None:
    whole = 4 * sum(p.numel() for name, p in model().named_parameters() if "head" not in name)
    assert costs.shared_bytes(model("adapter")) == costs.shared_bytes(model("linear")) == whole
    assert costs.shared_bytes(model("full")) == 0
    assert 0 < costs.shared_bytes(model("partial")) < whole


def test_records_tell_it(small: dict[str, Any]) -> None:
    petlbench.run(**small | {"methods": ["lora", "adapter", "full"]})
    records = {r["spec"]["method"]["name"]: r for r in Store(small["results"]).load()[0]}
    assert records["lora"]["inference"] == {"parameters": 0, "flops": 0}  # it merges
    assert records["full"]["inference"] == {"parameters": 0, "flops": 0}
    adapter = records["adapter"]
    assert adapter["inference"]["parameters"] == adapter["parameters"]["trainable"]
    assert adapter["inference"]["flops"] > 0
    assert records["full"]["shared_bytes"] == 0 < adapter["shared_bytes"]
