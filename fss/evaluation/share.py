"""What one process does of an evaluation: which pictures it reads, and in which order it answers what."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import DataLoader

from fss.data.episodes import EpisodeDataset
from fss.data.loading import build_loader
from fss.data.sampler import EpisodeSampler
from fss.evaluation.plan import Picture, PictureSteps, PlannedEpisode, plan_steps
from fss.evaluation.reuse import ReusingEvaluator
from fss.models.segmenter import FewShotSegmenter


class Share:
    """A process's part of planned episodes, in blocks of steps whose queries are encoded together.

    Args:
        episodes: Data set from which pictures are read.
        planned: Episodes of all processes, in the order of evaluation.
        rank: Of this process.
        world: Number of processes.
        batch: Pictures encoded at once; see `ReusingEvaluator`.

    Attributes:
        blocks: At least one, which is empty if there are fewer steps than processes: Lightning passes over a
            process without batches, and the others would wait for its sums.
        pictures: The new pictures of each block.
    """

    def __init__(
        self, episodes: EpisodeDataset, planned: Sequence[PlannedEpisode], rank: int, world: int, batch: int
    ) -> None:
        steps = plan_steps(planned, rank, world)
        self.batch = batch
        self.blocks = [steps[i : i + batch] for i in range(0, len(steps), batch)] or [[]]
        self.pictures = PictureSteps(episodes, self.blocks)

    def loader(self, num_workers: int) -> DataLoader[list[Picture]]:
        """The pictures of one block after another; they are to be copied (`own_copy`) where they are kept."""
        return build_loader(self.pictures, EpisodeSampler(len(self.blocks)), 1, num_workers, _only)

    def evaluator(
        self, segmenter: FewShotSegmenter, base_classes: Sequence[int], limit_gb: float
    ) -> ReusingEvaluator:
        """Answers the blocks once; see `ReusingEvaluator`.

        Args:
            segmenter: In eval mode and on its device.
            base_classes: Ids of the base classes in their order; none to take an episode's class for a novel one
                even if it is among them.
            limit_gb: How much to keep.
        """
        return ReusingEvaluator(
            segmenter, self.pictures, self.blocks, own_classes(base_classes), limit_gb, self.batch
        )


def own_classes(base_classes: Sequence[int]) -> dict[int, int]:
    """Position of each base class among the base classes, from 0."""
    return {class_id: position for position, class_id in enumerate(base_classes)}


def _only(blocks: list[list[Picture]]) -> list[Picture]:
    """Unpacks a batch of the loader, which contains a single block."""
    return blocks[0]
