"""What an adapted model takes in use: counted, where petlbench.speed measures."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from petlbench.backbone import Backbone, stored_tensors, trained_parameters


def of_inference(model: Backbone, image_size: int) -> dict[str, int]:
    """Parameters, and operations to encode one image (two for a multiply-add); head left out."""
    parameters = sum(p.numel() for name, p in model.named_parameters() if not _of_head(name))
    fused = any(getattr(module, "fused_attn", False) for module in model.modules())
    training, trained = model.training, list(trained_parameters(model).values())
    model.eval()
    for parameter in trained:  # the counter follows gradients of inputs, and expects them to exist
        parameter.requires_grad_(False)
    model.use_fused_attention(False)  # a fused kernel is not counted on every device
    device = next(model.parameters()).device
    bf16 = any(parameter.dtype is torch.bfloat16 for parameter in model.parameters())
    mixed = torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext()
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), torch.compiler.set_stance("force_eager"), mixed, counter:
        model.encode(torch.zeros(1, 3, image_size, image_size, device=device))
    for parameter in trained:
        parameter.requires_grad_(True)
    model.train(training)
    model.use_fused_attention(fused)
    return {"parameters": parameters, "flops": int(counter.get_total_flops())}


def shared_bytes(model: nn.Module) -> int:
    """The backbone's parameters that no task stores anew, in 32 bits.

    Of full fine-tuning that is 0: every task stores all of them.
    """
    own = stored_tensors(model)
    parameters = model.named_parameters()
    return 4 * sum(p.numel() for name, p in parameters if name not in own and not _of_head(name))


def _of_head(name: str) -> bool:
    return name.startswith("head.")
