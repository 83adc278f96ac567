"""How ids are shared out to processes and loaded, for all data modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from fss.data.sampler import EpisodeSampler


class Progress(Protocol):
    """What of Lightning's Trainer decides which ids come next."""

    @property
    def world_size(self) -> int: ...

    @property
    def global_rank(self) -> int: ...

    @property
    def current_epoch(self) -> int: ...


def training_batches(trainer: Progress | None, ids: int, batch_size: int) -> tuple[EpisodeSampler, int]:
    """This process's training ids of this epoch, and how many of them make a batch.

    To be called anew every epoch (reload_dataloaders_every_n_epochs=1), so that a resumed run keeps its order.

    Args:
        trainer: None for one process and its first epoch.
        ids: Of an epoch, over all processes; at least a batch.
        batch_size: Of a step, over all processes.

    Raises:
        ValueError: The processes cannot share a batch equally.
    """
    world = trainer.world_size if trainer else 1
    if batch_size % world:
        raise ValueError(f"batch_size={batch_size} is for all {world} processes, which do not divide it")
    # Whole batches only, so that every process takes as many steps; the rest comes in the next epoch.
    whole = ids - ids % batch_size
    epoch, rank = (trainer.current_epoch, trainer.global_rank) if trainer else (0, 0)
    return EpisodeSampler(whole, epoch, rank, world), batch_size // world


def evaluation_ids(trainer: Progress | None, ids: int) -> EpisodeSampler:
    """This process's ids of an evaluation; each id comes once over all processes."""
    return EpisodeSampler(ids, 0, trainer.global_rank, trainer.world_size) if trainer else EpisodeSampler(ids)


def build_loader(
    dataset: Dataset[Any],
    sampler: EpisodeSampler,
    batch_size: int,
    num_workers: int,
    collate: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """A loader that reads in worker processes of one thread each."""
    return DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=num_workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_one_thread,  # OpenCV's own threads would fight the workers beside it
    )


def _one_thread(worker: int) -> None:
    cv2.setNumThreads(0)
