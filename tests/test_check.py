"""The contract holds for every built-in method, and breaking it is noticed in plain words."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from petlbench.backbone import Backbone, Shape
from petlbench.check import CLAIMS, MODELS, check
from petlbench.method import Method, setting

SHAPE, IDENTITY, COUNT, TRAINING, MERGING, CONFIGURATION, WEIGHTS = CLAIMS


class Bottleneck(nn.Module):
    """x -> up(down x), from `zero` on."""

    def __init__(self, dim: int, zero: str = "up") -> None:
        super().__init__()
        self.down, self.up = nn.Linear(dim, 2, bias=False), nn.Linear(2, dim, bias=False)
        for name in zero.split():
            nn.init.zeros_(getattr(self, name).weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.up(self.down(x))
        return y


@dataclass(frozen=True)
class Sound(Method):
    """A parallel bottleneck: what the broken methods below are variations of."""

    scale: float = setting(1.0, above=0)

    def module(self, dim: int) -> nn.Module:
        return Bottleneck(dim)

    def attach(self, backbone: Backbone) -> None:
        for block in backbone.blocks:
            block.mlp.parallel.append(self.module(block.shape.dim))

    def num_trainable(self, shape: Shape) -> int:
        return sum(4 * block.dim for block in shape.blocks)


@dataclass(frozen=True)
class WrongCount(Sound):
    def num_trainable(self, shape: Shape) -> int:
        return 1234


@dataclass(frozen=True)
class NoCount(Sound):
    def num_trainable(self, shape: Shape) -> int:
        return Method.num_trainable(self, shape)


@dataclass(frozen=True)
class NotIdentity(Sound):
    def module(self, dim: int) -> nn.Module:
        return Bottleneck(dim, zero="")


@dataclass(frozen=True)
class IdentityAfterAll(Sound):
    def identity_at_init(self) -> bool:
        return False


@dataclass(frozen=True)
class AllZero(Sound):
    """Down and up both start at zero: no gradient ever reaches either."""

    def module(self, dim: int) -> nn.Module:
        return Bottleneck(dim, zero="down up")


@dataclass(frozen=True)
class Unused(Sound):
    def module(self, dim: int) -> nn.Module:
        module = Bottleneck(dim)
        module.forward = torch.zeros_like  # type: ignore[assignment]
        return module


class Counting(Bottleneck):
    """Keeps a running statistic in a buffer, as batch normalisation does."""

    def __init__(self, dim: int) -> None:
        super().__init__(dim)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen += len(x)  # type: ignore[operator]
        return super().forward(x)


@dataclass(frozen=True)
class MovesBuffer(Sound):
    def module(self, dim: int) -> nn.Module:
        return Counting(dim)


@dataclass(frozen=True)
class EditsFrozen(Sound):
    """Writes to a frozen weight whenever it is called."""

    def attach(self, backbone: Backbone) -> None:
        super().attach(backbone)
        weight = backbone.blocks[0].attn.layer.qkv.weight

        def edit(*_: object) -> None:
            weight.data.mul_(1.01)

        backbone.vit.norm.register_forward_pre_hook(edit)


@dataclass(frozen=True)
class EditsFrozenAtOnce(Sound):
    """Writes to a frozen weight when it is attached."""

    def attach(self, backbone: Backbone) -> None:
        super().attach(backbone)
        backbone.blocks[0].attn.layer.qkv.weight.data.mul_(1.01)

    def identity_at_init(self) -> bool:
        return False


@dataclass(frozen=True)
class Unfreezes(Sound):
    """Trains more than it declares: a name that matches too much."""

    def attach(self, backbone: Backbone) -> None:
        super().attach(backbone)
        for name, parameter in backbone.named_parameters():
            if "blocks.1" in name:
                parameter.requires_grad_(True)


@dataclass(frozen=True)
class FreezesHead(Sound):
    """The head must train in every method."""

    def attach(self, backbone: Backbone) -> None:
        super().attach(backbone)
        backbone.head.requires_grad_(False)


@dataclass(frozen=True)
class WrongShape(Sound):
    def attach(self, backbone: Backbone) -> None:
        super().attach(backbone)
        backbone.head = nn.Linear(backbone.shape.num_features, 7)


@dataclass(frozen=True)
class ForgetsRegisters(Sound):
    """Takes one prefix token for granted."""

    def attach(self, backbone: Backbone) -> None:
        super().attach(backbone)
        height, width = backbone.blocks[0].shape.grid or (0, 0)

        def reshape(module: nn.Module, inputs: tuple[Tensor]) -> None:
            inputs[0][:, 1:].unflatten(1, (height, width))

        backbone.vit.norm.register_forward_pre_hook(reshape)


@dataclass(frozen=True)
class RandomBasis(Sound):
    """Draws a frozen random projection that is not stored: reloading draws another one."""

    def module(self, dim: int) -> nn.Module:
        module = Bottleneck(dim)
        basis = torch.randn(dim, dim, generator=torch.Generator().manual_seed(torch.seed()))
        module.register_forward_pre_hook(lambda _, inputs: (inputs[0] @ basis,))
        return module


@dataclass(frozen=True)
class NotANumber(Sound):
    def module(self, dim: int) -> nn.Module:
        module = Bottleneck(dim)
        module.register_forward_hook(lambda _, inputs, output: output + 0 * output.sum().sqrt())
        return module


@dataclass(frozen=True)
class Raises(Sound):
    def attach(self, backbone: Backbone) -> None:
        raise KeyError("blocks.12")


def test_the_pattern_itself_is_sound() -> None:
    assert [finding for finding in check(Sound()) if not finding.holds] == []


@pytest.mark.parametrize(
    ("broken", "claims", "detail"),
    [
        (WrongCount(), {COUNT}, "384 trainable, 1,234 declared"),
        (NoCount(), {COUNT}, "does not declare its parameter count"),
        (NotIdentity(), {IDENTITY}, "declared an identity, but logits differ by up to "),
        (IdentityAfterAll(), {IDENTITY}, "declared no identity, but the logits are those"),
        (AllZero(), {TRAINING}, "did not move: vit.blocks.0.mlp.parallel.0.down.weight"),
        (Unused(), {TRAINING}, "did not move: vit.blocks.0.mlp.parallel.0."),
        (MovesBuffer(), {TRAINING}, "frozen, but changed: vit.blocks.0.mlp.parallel.0.seen"),
        (EditsFrozen(), {TRAINING}, "frozen, but changed: vit.blocks.0.attn.layer.qkv.w"),
        (EditsFrozenAtOnce(), {TRAINING}, "vit.blocks.0.attn.layer.qkv.weight"),
        (Unfreezes(), {COUNT}, " trainable, 384 declared"),
        (FreezesHead(), {TRAINING}, "head"),
        (WrongShape(), {SHAPE}, "logits have shape (8, 7), not (8, 5)"),
        (RandomBasis(), {WEIGHTS}, "the reloaded model predicts something else"),
        (Raises(), {SHAPE}, "KeyError: 'blocks.12' (test_check.py, line "),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Method) else "",
)
def test_a_broken_method_is_noticed(broken: Method, claims: set[str], detail: str) -> None:
    failed = [finding for finding in check(broken) if not finding.holds]
    assert claims <= {finding.claim for finding in failed}
    assert {finding.model for finding in failed} == set(MODELS) - {"ConvNeXt"}
    assert any(detail in finding.detail for finding in failed), failed
    assert all("\n" not in finding.detail for finding in failed)


def test_what_is_taken_for_granted_is_noticed() -> None:
    failed = {finding.model for finding in check(ForgetsRegisters()) if not finding.holds}
    assert "registers and LayerScale" in failed and "[cls] token" not in failed


def test_a_method_that_gives_nan_is_noticed() -> None:
    assert any(not finding.holds for finding in check(NotANumber()))


def test_a_frozen_basis_that_is_stored_nowhere_but_seeded_is_fine() -> None:
    """Only what cannot be restored is wrong."""

    @dataclass(frozen=True)
    class Seeded(Sound):
        def module(self, dim: int) -> nn.Module:
            module = Bottleneck(dim)
            basis = torch.randn(dim, dim, generator=torch.Generator().manual_seed(3))
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0] @ basis,))
            return module

    assert all(finding.holds for finding in check(Seeded()))


def test_it_leaves_the_methods_random_numbers_alone() -> None:
    torch.manual_seed(0)
    first = [str(finding) for finding in check(Sound())]
    torch.manual_seed(1)
    assert [str(finding) for finding in check(Sound())] == first
