"""What the processes of a run that is spread over several devices do together; a run of one process, nothing."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """How many processes share the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """The sum of each value over all processes; every process has to call it. No gradient flows through it."""
    if count() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """The mean of each value over all processes; see `total`."""
    return total(values) / count()


def largest(value: int, device: torch.device) -> int:
    """The largest of the processes' values, sent by way of a device that they communicate with."""
    if count() == 1:
        return value
    values = torch.tensor(value, device=device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return int(values)


def gather(thing: object) -> list[object]:
    """A thing of every process, in their order; it is pickled on the way."""
    if count() == 1:
        return [thing]
    things: list[object] = [None] * count()
    dist.all_gather_object(things, thing)
    return things
