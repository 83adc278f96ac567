"""Which episodes come in an epoch, on one process or shared among several."""

from __future__ import annotations

from collections.abc import Iterator

from torch.utils.data import Sampler


class EpisodeSampler(Sampler[int]):
    """Global episode ids of one epoch, of which each process takes every world-th.

    Nothing is padded and nothing comes twice, so sums over all processes count every episode once.

    Args:
        episodes: Episodes of an epoch, over all processes.
        epoch: Number of the epoch; its ids start at `epoch * episodes`.
        rank: Number of this process.
        world: Number of processes.
    """

    def __init__(self, episodes: int, epoch: int = 0, rank: int = 0, world: int = 1) -> None:
        start = epoch * episodes
        self.ids = range(start + rank, start + episodes, world)

    def __iter__(self) -> Iterator[int]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)
