"""Plans the episodes of an evaluation in an order that reuses pictures soon, and reads each picture once.

Shapes: S image side, h w original height and width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from fss.data.episodes import EpisodeDataset, read
from fss.data.support_masks import support_mask


class PlannedEpisode(NamedTuple):
    """An episode whose class and picture numbers are known but whose pictures have not been read.

    The order of the fields defines the order of evaluation: by class, whose pictures are reused often, and then by
    query, whose episodes follow one another.
    """

    class_id: int
    query: int
    seed: int
    id: int
    supports: tuple[int, ...]


Step = list[PlannedEpisode]  # the episodes of one query and class


class Picture(NamedTuple):
    """One picture with everything that the episodes of an evaluation need from it.

    Attributes:
        number: Number of the picture in its reader.
        image: (3, S, S) float32 RGB in 0..255, channels last in memory.
        masks: (S, S) uint8 for each class for which it is a support: 1 object, 0 background, 255 ignored.
        labels: (h, w) uint8 for each class for which it is a query; see `EpisodeDataset.label`.
    """

    number: int
    image: Tensor
    masks: dict[int, Tensor]
    labels: dict[int, Tensor]


def own_copy(picture: Picture) -> Picture:
    """Copies a picture into this process's own memory.

    Each tensor received from a loader process is an open file in shared memory, and both are limited.
    """
    masks, labels = ({c: t.clone() for c, t in tensors.items()} for tensors in (picture.masks, picture.labels))
    return Picture(picture.number, picture.image.clone(), masks, labels)


def with_seed(episodes: EpisodeDataset, seed: int) -> EpisodeDataset:
    """Returns a copy of the data set that draws episodes with another seed."""
    other = copy.copy(episodes)
    other.seed = seed
    return other


def plan_episodes(episodes: EpisodeDataset, seeds: Iterable[int], count: int) -> list[PlannedEpisode]:
    """Returns the first `count` episodes of each seed, in the order of evaluation."""
    planned = []
    for seed in seeds:
        drawn = with_seed(episodes, seed)
        for i in range(count):
            class_id, query, supports = drawn.draw(i)
            planned.append(PlannedEpisode(class_id, query, seed, i, supports))
    return sorted(planned)


def plan_steps(planned: Sequence[PlannedEpisode], rank: int = 0, world: int = 1) -> list[Step]:
    """Returns the steps of process `rank` of `world`: a contiguous part with about the same number of episodes."""
    steps = [list(group) for _, group in groupby(planned, key=lambda e: (e.class_id, e.query))]
    mine, before = [], 0
    for step in steps:
        middle = before + len(step) / 2
        if int(middle * world / len(planned)) == rank:
            mine.append(step)
        before += len(step)
    return mine


class PictureSteps(Dataset[list[Picture]]):
    """For each block of steps, the pictures that no earlier block has used, each once.

    Args:
        episodes: Data set from which pictures are read.
        blocks: Steps, grouped into blocks.
    """

    def __init__(self, episodes: EpisodeDataset, blocks: Sequence[Sequence[Step]]) -> None:
        self.episodes = episodes
        self._supports: dict[int, set[int]] = {}  # classes for which a picture is a support
        self._queries: dict[int, set[int]] = {}
        self._new: list[list[int]] = []
        seen: set[int] = set()
        for block in blocks:
            new: dict[int, None] = {}  # an ordered set
            for episode in (episode for step in block for episode in step):
                self._queries.setdefault(episode.query, set()).add(episode.class_id)
                for number in episode.supports:
                    self._supports.setdefault(number, set()).add(episode.class_id)
                new |= dict.fromkeys((episode.query, *episode.supports))
            self._new.append([number for number in new if number not in seen])
            seen.update(new)

    def __len__(self) -> int:
        return len(self._new)

    def __getitem__(self, block: int) -> list[Picture]:
        return [self.picture(number) for number in self._new[block]]

    def picture(self, number: int) -> Picture:
        """Reads one picture and transforms it as `EpisodeDataset` does."""
        pixels, labels = read(self.episodes.reader, number)
        image, masks = None, {}
        for class_id in sorted(self._supports.get(number, ())):
            mask = support_mask(labels, class_id, self.episodes.support_annotation)
            image, mask = self.episodes.transform(pixels, mask, 0)
            masks[class_id] = torch.from_numpy(mask)
        queries = {c: self.episodes.label(labels, c) for c in sorted(self._queries.get(number, ()))}
        if image is None:
            image, _ = self.episodes.transform(pixels, next(iter(queries.values())), 0)
        return Picture(
            number,
            torch.from_numpy(image).permute(2, 0, 1),
            masks,
            {c: torch.from_numpy(label) for c, label in queries.items()},
        )
