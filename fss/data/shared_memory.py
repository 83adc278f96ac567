"""Memory that all processes of a loader share."""

from __future__ import annotations

import torch
from torch import Tensor


def shared_zeros(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    """Creates a tensor of zeros in shared memory, visible to forked and spawned workers.

    Raises:
        MemoryError: If there is not enough shared memory (containers often allow little).
    """
    try:
        return torch.zeros(shape, dtype=dtype).share_memory_()
    except RuntimeError as error:
        size = torch.Size(shape).numel() * dtype.itemsize
        raise MemoryError(f"no {size / 2**20:.0f} MiB of shared memory ({error})") from error
