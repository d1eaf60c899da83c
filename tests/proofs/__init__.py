"""One file per method, `test_<method>.py`: what it should compute, written a second time.

`test_reference.py` and `test_methods.py` read these names from it, all but the first optional:

    block(p, i, x, vit, **settings)      its block i as a formula over plain tensors, or
    logits(p, images, vit, **settings)   the whole model, where a block does not say all
    ADDED     names, within a block, of the parameters it adds to every block; or
    trained(p)                           the names of all parameters that train, the head included
    SETTINGS  [{...}, ...]               settings compared with the formula on every tiny model
    MORE      [{...}, ...]               and on one model
    COUNTS    [({...}, number), ...]     trainable parameters on ViT-B/16, without the head
    SIZE      the setting that is its width: refused below 1, drawn from 1 to 20
    BAD       [(field, value, text), ...]   settings that are refused, and a part of the message

and the file's own tests say what else its source prescribes (initialisation, dropout, drop-path).
Settings that do not change the evaluated formula are accepted and ignored.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from reference.vit import Params, Vit, classify, depth, embed
from torch import Tensor

from petlbench.check import Finding, check
from petlbench.method import builtin, load

PROOFS: dict[str, ModuleType] = {
    method: importlib.import_module(f"proofs.test_{method}")
    for method in builtin()
    if (Path(__file__).parent / f"test_{method}.py").exists()  # test_methods.py misses the others
}


def logits(method: str, p: Params, images: Tensor, vit: Vit, **settings: Any) -> Tensor:
    """Images (B, 3, H, W) -> (B, classes)."""
    proof = PROOFS[method]
    if hasattr(proof, "logits"):
        return proof.logits(p, images, vit, **settings)
    x = embed(p, images, vit)
    for i in range(depth(p)):
        x = proof.block(p, i, x, vit, **settings)
    return classify(p, x, vit)


def trained(method: str, p: Params) -> set[str]:
    """The names of all parameters that train, the head's included."""
    proof = PROOFS[method]
    if hasattr(proof, "trained"):
        return proof.trained(p)
    names = {f"vit.blocks.{i}.{name}" for i in range(depth(p)) for name in proof.ADDED}
    return names | {"head.weight", "head.bias"}


@functools.cache
def findings(method: str) -> tuple[Finding, ...]:
    """What `petlbench check` sees of a built-in method; measured once for all tests."""
    return tuple(check(load(method)()))


def every(attribute: str) -> list[tuple[Any, ...]]:
    """(method, entry) of each entry of that list, over all methods."""
    return [
        (method, *(entry if isinstance(entry, tuple) else (entry,)))
        for method, proof in PROOFS.items()
        for entry in getattr(proof, attribute, [])
    ]
