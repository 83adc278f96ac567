"""How ids are shared out to processes and loaded, for all data modules."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from fss.data.sampler import EpisodeSampler


class Loop(Protocol):
    """What of Lightning's fit loop tells how far a run is."""

    @property
    def total_batch_idx(self) -> int: ...


class Progress(Protocol):
    """What of Lightning's Trainer decides which ids come next."""

    @property
    def world_size(self) -> int: ...

    @property
    def global_rank(self) -> int: ...

    @property
    def fit_loop(self) -> Loop: ...


def training_batches(trainer: Progress | None, ids: int, batch_size: int) -> tuple[EpisodeSampler, int]:
    """This process's training ids, and how many of them make a batch.

    They begin where the run stands: at an epoch's first batch or, in a resumed run, at the next one.

    Args:
        trainer: None for one process and its first epoch.
        ids: Of an epoch, over all processes; at least a batch.
        batch_size: Of a step, over all processes.

    Raises:
        ValueError: The processes cannot share a batch equally.
    """
    share = batch_size_of_each(batch_size, trainer.world_size if trainer else 1)
    # Whole batches only, so that every process takes as many steps; the rest comes in the next epoch.
    whole = ids - ids % batch_size
    if trainer is None:
        return EpisodeSampler(whole), share

    def start() -> int:
        return (trainer.fit_loop.total_batch_idx + 1) * batch_size

    return EpisodeSampler(whole, trainer.global_rank, trainer.world_size, start), share


def batch_size_of_each(batch_size: int, processes: int) -> int:
    """What each process takes of a batch.

    Raises:
        ValueError: They cannot share it equally.
    """
    if batch_size % processes:
        raise ValueError(
            f"batch_size={batch_size} is for all {processes} processes, which cannot share it equally: make it a "
            f"multiple of {processes}, or change trainer.devices"
        )
    return batch_size // processes


def evaluation_ids(trainer: Progress | None, ids: int) -> EpisodeSampler:
    """This process's ids of an evaluation; each id comes once over all processes."""
    return EpisodeSampler(ids, trainer.global_rank, trainer.world_size) if trainer else EpisodeSampler(ids)


def training_loader(
    dataset: Dataset[Any],
    sampler: EpisodeSampler,
    batch_size: int,
    num_workers: int,
    collate: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """A loader whose worker processes live as long as the run."""
    return _LateLoader(
        dataset, persistent_workers=num_workers > 0, **_settings(sampler, batch_size, num_workers, collate)
    )


def build_loader(
    dataset: Dataset[Any],
    sampler: EpisodeSampler,
    batch_size: int,
    num_workers: int,
    collate: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """A loader for an evaluation, after which its worker processes end."""
    return DataLoader(dataset, **_settings(sampler, batch_size, num_workers, collate))


class _LateLoader(DataLoader[Any]):
    """Begins to read ahead when the first batch is asked for.

    Lightning makes a loader's iterator before it knows where in the epoch a resumed run stands.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


def _settings(
    sampler: EpisodeSampler, batch_size: int, num_workers: int, collate: Callable[[Any], Any] | None
) -> dict[str, Any]:
    return {
        "batch_size": batch_size,
        "sampler": sampler,
        "num_workers": num_workers,
        "collate_fn": collate,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _start_worker,
    }


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # OpenCV's own threads would fight the workers beside it
    # A cluster tells all processes of a job to end; the main one still needs its batches to finish a step.
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
