"""Estimates the memory of weights and of a step, by making them of tensors that have shapes but no contents.

Shapes: B batch, K shots, S image side.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from fss.models.segmenter import FewShotSegmenter

WORTHWHILE = 2_000_000  # pixels of a step, below which no estimate (a second or two) is made


class _Live(TorchDispatchMode):
    """Sums the bytes of all storages that are alive, and keeps the largest sum."""

    def __init__(self) -> None:
        super().__init__()
        self._alive = WeakIdKeyDictionary()
        self.peak = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                storage = value.untyped_storage()
                self._alive[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self._alive.values()))
        return result


def weights_bytes(build: Callable[[], nn.Module]) -> float:
    """Bytes of what `build` makes, of which nothing is allocated.

    Returns:
        Infinity if there is no such number, 0 if it can only be made with contents, or not at all.
    """
    try:
        with torch.device("meta"):
            made = build()
    except Exception as error:  # whatever it is, building in earnest will tell
        return math.inf if "overflow" in str(error) else 0
    return sum(value.nbytes for values in (made.parameters(), made.buffers()) for value in values)


def forward_bytes(segmenter: FewShotSegmenter, batch: int, shot: int, size: int, training: bool) -> int:
    """Estimates the bytes that are alive at most during a forward pass, weights left out.

    It is a lower bound of a training step, whose backward pass needs more, for objects that fill their pictures.

    Args:
        segmenter: Left as it is.
        batch: Episodes of a step (B).
        shot: K.
        size: S, pixels.
        training: Whether what the backward pass needs is kept.
    """
    device = next(segmenter.parameters()).device
    without_contents = FakeTensorMode(allow_non_fake_inputs=True)
    with without_contents:  # norms that take their statistics from batches would count them in their own
        buffers = {name: buffer.clone() for name, buffer in segmenter.named_buffers()}
    with without_contents, _Live() as live, torch.set_grad_enabled(training):
        query, support = (torch.empty(batch, *n, 3, size, size, device=device) for n in ((), (shot,)))
        masks = torch.empty(batch, shot, size, size, dtype=torch.uint8, device=device)
        classes = torch.zeros(batch, dtype=torch.int64, device=device)
        functional_call(segmenter, buffers, (query, support, masks, classes))
    return live.peak


def check_memory(
    segmenter: FewShotSegmenter,
    batch: int,
    shot: int,
    size: int,
    training: bool,
    device: torch.device,
    bytes_by: int = 1,
) -> None:
    """Refuses a step that cannot fit.

    Args:
        segmenter: Left as it is.
        batch: Episodes of a step on each process (B).
        shot: K.
        size: S, pixels.
        training: Whether it is a step of training.
        device: Where it is to run.
        bytes_by: What the estimate is divided by: 2 for numbers of 16 bits.

    Raises:
        ValueError: If it needs more memory than the device has.
    """
    if batch * (1 + shot) * size**2 < WORTHWHILE:
        return
    there = memory_bytes(device)
    needed = batch * (1 + shot) * 3 * size**2 * 4  # the pictures alone, for which numbers may be too large
    if needed <= there:
        needed = forward_bytes(segmenter, batch, shot, size, training) // bytes_by
    if needed > there:
        lower = "batch_size, dataset.size or shot" if training else "dataset.size or shot"
        raise ValueError(
            f"dataset.size={size} with {batch} episodes of {shot} supports needs about {needed / 1e9:.0f} GB of "
            f"memory, the device has {there / 1e9:.0f} GB: lower {lower}"
        )


def memory_bytes(device: torch.device) -> int:
    """All memory of a device; of the CPU what this process may use of it."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    found = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")  # of a container
    if limit.is_file() and (text := limit.read_text().strip()).isdecimal():
        found = min(found, int(text))
    return found
