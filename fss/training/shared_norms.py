"""Batch norms of a run that is spread over several processes."""

from __future__ import annotations

from typing import TypeVar

import lightning
from timm.layers import convert_sync_batchnorm
from torch import nn

M = TypeVar("M", bound=nn.Module)


def share_norms(module: M, trainer: lightning.Trainer, setting: str) -> M:
    """Lets the norms of a network see the whole batch of a step also where several processes share it.

    Args:
        module: The network.
        trainer: Knows the processes.
        setting: What asks for norms over the batch, for the message.

    Returns:
        The same network, or one of the same parameters.

    Raises:
        ValueError: The processes have no GPUs; torch shares norms between GPUs alone.
    """
    if trainer.world_size == 1:
        return module
    if trainer.strategy.root_device.type != "cuda":
        raise ValueError(
            f"{setting} trains norms over the whole batch, which several processes can only do on GPUs: train it "
            "with trainer=cpu"
        )
    return convert_sync_batchnorm(module)  # timm's, whose norms are also activations
