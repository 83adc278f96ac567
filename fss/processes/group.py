"""Communication between the processes of a distributed run; does nothing if there is only one process."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor


def count() -> int:
    """The number of processes that share the run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def total(values: Tensor) -> Tensor:
    """Sums each value over all processes; every process must call it. No gradient flows through it."""
    if count() == 1:
        return values
    values = values.detach().clone()
    dist.all_reduce(values)
    return values


def mean(values: Tensor) -> Tensor:
    """Averages each value over all processes; see `total`."""
    return total(values) / count()


def largest(value: int, device: torch.device) -> int:
    """The largest value of all processes, exchanged via `device`, which their backend must support."""
    if count() == 1:
        return value
    values = torch.tensor(value, device=device)
    dist.all_reduce(values, dist.ReduceOp.MAX)
    return int(values)


def gather(thing: object) -> list[object]:
    """Collects one picklable object from every process, in order of rank."""
    if count() == 1:
        return [thing]
    things: list[object] = [None] * count()
    dist.all_gather_object(things, thing)
    return things
