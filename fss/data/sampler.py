"""Which episodes come in an epoch, on one process or shared among several."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch.utils.data import Sampler


class EpisodeSampler(Sampler[int]):
    """Successive global episode ids, of which each process takes every world-th.

    Nothing is padded and nothing comes twice, so sums over all processes count every episode once.

    Args:
        episodes: Ids of an epoch, over all processes.
        rank: Number of this process.
        world: Number of processes.
        start: The first id over all processes, asked for anew whenever an epoch begins; by default always 0.
    """

    def __init__(
        self, episodes: int, rank: int = 0, world: int = 1, start: Callable[[], int] | None = None
    ) -> None:
        self.episodes, self.rank, self.world, self.start = episodes, rank, world, start

    def __iter__(self) -> Iterator[int]:
        start = self.start() if self.start else 0
        return iter(range(start + self.rank, start + self.episodes, self.world))

    def __len__(self) -> int:
        return len(range(self.rank, self.episodes, self.world))
