"""Memory that all processes of a loader see."""

from __future__ import annotations

import torch
from torch import Tensor


def shared_zeros(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> Tensor:
    """Zeros that forked workers inherit and spawned ones are handed, where what one writes all can read.

    Raises:
        MemoryError: There is not so much shared memory (containers allow little).
    """
    try:
        return torch.zeros(shape, dtype=dtype).share_memory_()
    except RuntimeError as error:
        size = torch.Size(shape).numel() * dtype.itemsize
        raise MemoryError(f"no {size / 2**20:.0f} MiB of shared memory ({error})") from error
