"""Distributes ids over processes and builds the loaders of all data modules."""

from __future__ import annotations

import atexit
import errno
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing import queues
from typing import Any, Protocol

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from fss.data.parallel import cores
from fss.data.sampler import EpisodeSampler
from fss.processes.orphans import end_with_parent


class Loop(Protocol):
    """The part of Lightning's fit loop that says how far training has progressed."""

    @property
    def total_batch_idx(self) -> int: ...


class Progress(Protocol):
    """The part of Lightning's Trainer that determines which ids come next."""

    @property
    def world_size(self) -> int: ...

    @property
    def global_rank(self) -> int: ...

    @property
    def fit_loop(self) -> Loop: ...


def training_batches(trainer: Progress | None, ids: int, batch_size: int) -> tuple[EpisodeSampler, int]:
    """Returns this process's sampler of training ids and its batch size.

    The ids start at the run's current position: at the first batch of an epoch or, in a resumed run, at the
    first batch not yet trained on.

    Args:
        trainer: The trainer, or None for a single process in its first epoch.
        ids: Ids per epoch, over all processes; at least one batch.
        batch_size: Batch size of a step, over all processes.

    Raises:
        ValueError: If a batch cannot be divided equally among the processes.
    """
    share = batch_size_of_each(batch_size, trainer.world_size if trainer else 1)
    # Full batches only, so that all processes take the same number of steps; the rest moves to the next epoch.
    whole = ids - ids % batch_size
    if trainer is None:
        return EpisodeSampler(whole), share

    def start() -> int:
        return (trainer.fit_loop.total_batch_idx + 1) * batch_size

    return EpisodeSampler(whole, trainer.global_rank, trainer.world_size, start), share


def batch_size_of_each(batch_size: int, processes: int) -> int:
    """Returns each process's share of a batch.

    Raises:
        ValueError: If the batch cannot be divided equally.
    """
    if batch_size % processes:
        raise ValueError(
            f"batch_size={batch_size} cannot be divided equally among {processes} processes: make it a multiple "
            f"of {processes}, or change trainer.devices"
        )
    return batch_size // processes


def evaluation_ids(trainer: Progress | None, ids: int) -> EpisodeSampler:
    """Returns this process's sampler for an evaluation; over all processes, each id occurs exactly once."""
    return EpisodeSampler(ids, trainer.global_rank, trainer.world_size) if trainer else EpisodeSampler(ids)


def training_loader(
    dataset: Dataset[Any],
    sampler: EpisodeSampler,
    batch_size: int,
    num_workers: int,
    collate: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """Builds a loader whose worker processes live until the run ends."""
    return _Loader(
        dataset, persistent_workers=num_workers > 0, **_settings(sampler, batch_size, num_workers, collate)
    )


def build_loader(
    dataset: Dataset[Any],
    sampler: EpisodeSampler,
    batch_size: int,
    num_workers: int,
    collate: Callable[[Any], Any] | None = None,
) -> DataLoader[Any]:
    """Builds a loader for an evaluation, whose worker processes end with it."""
    return _Loader(dataset, **_settings(sampler, batch_size, num_workers, collate))


class _Loader(DataLoader[Any]):
    """Begins to read ahead when the first batch is asked for, and says what to do where a worker process fails.

    Lightning creates a loader's iterator before it knows the position of a resumed run within the epoch.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        try:
            yield from super().__iter__()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN):
                raise
            raise OSError(f"{self.num_workers} loader processes cannot be started ({error}): {_MEND}") from error
        except RuntimeError as error:
            if "exited unexpectedly" not in str(error) and "killed by signal" not in str(error):
                raise
            raise RuntimeError(f"a loader process ended before its work ({error}): {_MEND}") from error


_MEND = "lower dataset.num_workers, or raise the limit of memory or of open files (ulimit -n)"


@atexit.register  # after multiprocessing's own, and so called before it, which waits until they have ended
def _end_workers() -> None:
    """Kills daemonic children, as loaders' are: those that ignore SIGTERM or wait for what will never come."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would call each an error
    for child in multiprocessing.active_children():
        if child.daemon:
            child.kill()


def _settings(
    sampler: EpisodeSampler, batch_size: int, num_workers: int, collate: Callable[[Any], Any] | None
) -> dict[str, Any]:
    return {
        "batch_size": batch_size,
        "sampler": sampler,
        # more than there are cores would only take turns; batches do not depend on their number
        "num_workers": min(num_workers, cores()),
        "collate_fn": collate,
        "pin_memory": torch.cuda.is_available(),
        "worker_init_fn": _start_worker,
    }


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # OpenCV's own threads would compete with the other workers
    end_with_parent()
    # A cluster signals all processes of a job to end, and Ctrl-C all those of a terminal, but the main process
    # still needs batches to finish a step.
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    # A batch that could not be sent, as with too few open files allowed, would be waited for for ever.
    queues.Queue._on_queue_feeder_error = staticmethod(_cannot_send)  # type: ignore[attr-defined]


def _cannot_send(error: Exception, batch: Any) -> None:
    print(f"A loader process cannot hand over a batch ({error}): {_MEND}", file=sys.stderr, flush=True)
    os._exit(1)  # which the main process notices
