"""Batch norms in a run with several processes."""

from __future__ import annotations

from typing import TypeVar

import lightning
from timm.layers import convert_sync_batchnorm
from torch import nn

M = TypeVar("M", bound=nn.Module)


def share_norms(module: M, trainer: lightning.Trainer, setting: str) -> M:
    """Synchronises a network's batch norms, so that they see the whole batch even if several processes share it.

    Args:
        module: The network.
        trainer: The trainer, which knows the number of processes.
        setting: The setting that requires norms over the batch, for the error message.

    Returns:
        The same network, or one with the same parameters.

    Raises:
        ValueError: If the processes do not run on GPUs; torch can synchronise norms only between GPUs.
    """
    if trainer.world_size == 1:
        return module
    if trainer.strategy.root_device.type != "cuda":
        raise ValueError(
            f"{setting} trains norms over the whole batch, which several processes can only do on GPUs: train it "
            "with trainer=cpu"
        )
    return convert_sync_batchnorm(module)  # timm's version, which also handles its fused norm layers
