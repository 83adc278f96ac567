"""What one process does of an evaluation: which pictures it reads, and which episodes it answers when."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import DataLoader

from fss.data.episodes import EpisodeDataset
from fss.data.loading import build_loader
from fss.data.plan import Picture, PictureSteps, PlannedEpisode, plan_steps
from fss.data.sampler import EpisodeSampler


class Share:
    """A process's part of planned episodes, in blocks of steps whose queries are encoded together.

    Args:
        episodes: Data set from which pictures are read.
        planned: Episodes of all processes, in the order of evaluation.
        rank: Of this process.
        world: Number of processes.
        batch: Steps in a block.

    Attributes:
        blocks: At least one, which is empty if there are fewer steps than processes: Lightning passes over a
            process without batches, and the others would wait for its sums.
        pictures: The new pictures of each block.
    """

    def __init__(
        self, episodes: EpisodeDataset, planned: Sequence[PlannedEpisode], rank: int, world: int, batch: int
    ) -> None:
        steps = plan_steps(planned, rank, world)
        self.blocks = [steps[i : i + batch] for i in range(0, len(steps), batch)] or [[]]
        self.pictures = PictureSteps(episodes, self.blocks)

    def loader(self, num_workers: int) -> DataLoader[list[Picture]]:
        """The pictures of one block after another; they are to be copied (`own_copy`) where they are kept."""
        return build_loader(self.pictures, EpisodeSampler(len(self.blocks)), 1, num_workers, _only)


def _only(blocks: list[list[Picture]]) -> list[Picture]:
    """Unpacks a batch of the loader, which contains a single block."""
    return blocks[0]
