"""Selects the episodes of an epoch, for one process or divided among several."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch.utils.data import Sampler


class EpisodeSampler(Sampler[int]):
    """Consecutive global episode ids; process `rank` of `world` takes ids start + rank, + rank + world, ...

    There is no padding and no repetition, so sums over all processes count every episode exactly once.

    Args:
        episodes: Ids per epoch, over all processes.
        rank: Rank of this process.
        world: Number of processes.
        start: Returns the first id (over all processes); called at the start of each epoch. Default: always 0.
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
