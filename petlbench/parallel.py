"""One run on several devices: its ranks have the same model, and a share of every batch each.

A rank is a process with a device of its own; `launch` starts them. What ranks do with each other is
here, and does nothing in a process that is no rank. A batch's loss and gradient are those of its
mean: the ranks add up the means of their shares, weighted by how many examples each share has.
Nothing else of a step is agreed on, so that each rank takes its share in as many parts as fit into
its own memory.
"""

from __future__ import annotations

import functools
import itertools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from petlbench import apart
from petlbench.errors import RunError, UsageError

if TYPE_CHECKING:
    from joblib.externals.loky import ProcessPoolExecutor

PATIENCE = timedelta(minutes=30)  # how long ranks wait for each other: one may still be compiling
IDLE = 30  # seconds after which ranks that have no further run end
LAST_WORDS = 2.0  # seconds in which a rank that died is told from those that miss it
T = TypeVar("T")


def require(count: int, device: str, elsewhere: bool, resources: Mapping[str, Any]) -> None:
    """Raise UsageError where runs cannot have that many devices of that kind."""
    asked = f"--devices-per-run {count}"
    if not dist.is_available():
        raise UsageError(f"{asked}: this build of PyTorch has no torch.distributed.")
    if device == "mps":
        raise UsageError(f"{asked}: a machine has one mps device; leave it out, or --device cpu.")
    given = resources.get("gpus_per_node")
    if device == "cuda" and elsewhere and isinstance(given, int) and given < count:
        raise UsageError(
            f"{asked}: a job would have {given} GPUs; say --resource gpus_per_node={count}."
        )
    if device == "cuda" and not elsewhere and (there := torch.cuda.device_count()) < count:
        raise UsageError(
            f"{asked}: the GPUs of this machine are {there}; to try it out without: --device cpu."
        )


def devices(first: str, count: int) -> list[str]:
    """The device of each rank: processes share the CPU, GPUs are taken from `first` on.

    Raises RunError where there are not enough.
    """
    kind, _, number = first.partition(":")
    if kind == "cpu":
        return [first] * count
    start, there = int(number or 0), torch.cuda.device_count()
    if start + count > there:
        raise RunError(f"a run on {count} GPUs from {first} on: this machine has {there}.")
    return [f"{kind}:{start + rank}" for rank in range(count)]


# -- in the process that has claimed a run ---------------------------------------------------------


def launch(calls: Sequence[Callable[[], T]], on: Sequence[str], threads: int) -> list[T]:
    """What the calls give: call r in rank r, on device `on[r]`. All end when one fails.

    Raises what a rank raised, or ChildProcessError where one died.
    """
    from joblib.externals.loky.process_executor import BrokenProcessPool

    ranks = _ranks(len(calls), threads)
    with tempfile.TemporaryDirectory() as folder:
        meeting = str(Path(folder, "ranks"))
        try:
            futures = [
                ranks.submit(_in_group, call, rank, len(calls), meeting, on[rank])
                for rank, call in enumerate(calls)
            ]
            if any(each.exception() for each in wait(futures, None, FIRST_EXCEPTION).done):
                ended = wait(futures, LAST_WORDS).done  # those of a rank that died come last
                errors = filter(None, (each.exception() for each in ended))
                raise min(errors, key=lambda error: not isinstance(error, BrokenProcessPool))
            return [each.result() for each in futures]
        except BaseException as error:
            _ranks.cache_clear()
            ranks.shutdown(kill_workers=True)  # the others wait for the one that failed
            if isinstance(error, BrokenProcessPool):
                raise ChildProcessError(
                    f"one of the {len(calls)} processes of this run died, for lack of memory or "
                    f"by a method's own doing. ({error})"
                ) from error
            raise


@functools.cache
def _ranks(count: int, threads: int) -> ProcessPoolExecutor:
    """Processes that stay for the next run: importing PyTorch takes longer than a short one."""
    return apart.processes(count, threads, IDLE)


def _in_group(call: Callable[[], T], rank: int, size: int, meeting: str, device: str) -> T:
    backend = "gloo"
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
        backend = "nccl"
    dist.init_process_group(
        backend, f"file://{meeting}", rank=rank, world_size=size, timeout=PATIENCE
    )
    found = call()
    dist.destroy_process_group()  # not after an error: the others' would hide it
    return found


# -- in a rank -------------------------------------------------------------------------------------


def size() -> int:
    """The number of ranks; 1 in a process that is none."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process among them: 0, 1, ..."""
    return dist.get_rank() if size() > 1 else 0


def align(model: nn.Module, seed: int) -> None:
    """Rank 0's model on every rank, and random numbers of its own on each."""
    if size() == 1:
        return
    trained = (parameter for parameter in model.parameters() if parameter.requires_grad)
    for tensor in (*trained, *model.buffers()):
        sent = tensor.data.contiguous()  # the tensor itself, unless it is transposed
        dist.broadcast(sent, 0)
        tensor.data.copy_(sent)
    words = np.random.SeedSequence((seed, rank())).generate_state(1, np.uint64)
    torch.manual_seed(int(words[0]))


def share(batch: Tensor) -> tuple[Tensor, float]:
    """This rank's examples of a batch (B,), and how much their mean weighs in that of the batch.

    A rank for which none is left takes the first, with weight 0, so that it does as the others do.
    """
    if size() == 1:
        return batch, 1.0
    own = batch[_places(len(batch))[rank()]]
    return (own, len(own) / len(batch)) if len(own) else (batch[:1], 0.0)


def _places(total: int) -> list[Tensor]:
    """Where in a batch the share of each rank is, ascending.

    An example comes with the one that it is mixed with, which is as far from the other end (see
    data.augment.mix): a share is mixed as it would be within its batch.
    """
    place = torch.arange(total)
    turn = torch.minimum(place, total - 1 - place) % size()
    return [(turn == each).nonzero()[:, 0] for each in range(size())]


def combine(loss: Tensor, parameters: Sequence[nn.Parameter], weight: float) -> Tensor:
    """The loss of a batch, and its gradient in `parameters`, from those of this rank's share.

    A parameter has one where any share gave it one: that may depend on the examples, or on chance.
    """
    if size() == 1:
        return loss
    missing = [place for place, p in enumerate(parameters) if p.grad is None]
    own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    given = loss.new_ones(len(own))
    for place in missing:
        given[place] = 0
    sent = [loss, given, *own]
    total = torch.cat([each.flatten() for each in sent]).mul_(weight)  # one message for all
    dist.all_reduce(total)
    of_loss, anywhere, *sums = torch.split(total, [x.numel() for x in sent])
    loss.copy_(of_loss.view_as(loss))
    # to look at them waits for the device, and says nothing new where this share gave all
    known = anywhere.tolist() if missing or not weight else [1.0] * len(own)
    for parameter, gradient, summed, some in zip(parameters, own, sums, known, strict=True):
        parameter.grad = gradient.copy_(summed.view_as(gradient)) if some else None
    return loss


def gather(rows: Tensor, total: int) -> Tensor:
    """What the ranks have of their shares of a batch, in its order: (own, ...) -> (total, ...).

    Gradients flow to the rank's own rows.
    """
    return rows if size() == 1 else _gathered(rows, _places(total))


def block(total: int) -> slice:
    """This rank's part of what is only read, once and in a row; `join` puts it together again."""
    blocks = _blocks(total)
    return blocks[rank() % len(blocks)]


def join(rows: Tensor, total: int) -> Tensor:
    """What each rank made of its `block` of `total`: (own, ...) -> (total, ...)."""
    blocks, place = _blocks(total), torch.arange(total)
    return rows if len(blocks) == 1 else _gathered(rows, [place[each] for each in blocks])


def _blocks(total: int) -> list[slice]:
    """One for each rank; or one, which all take, where there are not enough."""
    count = size() if total >= size() else 1
    edges = [total * each // count for each in range(count + 1)]
    return [slice(*pair) for pair in itertools.pairwise(edges)]


def _gathered(rows: Tensor, places: Sequence[Tensor]) -> Tensor:
    """Row i of rank r becomes row places[r][i]."""
    mine, counts = places[rank()].to(rows.device), [len(each) for each in places]
    rows = rows[: len(mine)]  # not what a rank without a share has made
    padded = rows.new_zeros(max(counts), *rows.shape[1:])
    padded[: len(mine)] = rows.detach()
    parts = [torch.empty_like(padded) for _ in places]
    dist.all_gather(parts, padded)
    found = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    order = torch.cat(list(places)).to(rows.device)
    return torch.empty_like(found).index_copy(0, order, found).index_copy(0, mine, rows)
