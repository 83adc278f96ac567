"""The episodes of an evaluation: in an order in which pictures are used again soon, and read picture by picture.

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

from fss.data.episodes import EpisodeDataset, annotate, read, select


class PlannedEpisode(NamedTuple):
    """An episode that is known but not read: picture numbers and a class.

    The fields' order is the order of evaluation: a class's pictures come again and again, and a query's episodes
    one after another.
    """

    class_id: int
    query: int
    seed: int
    id: int
    supports: tuple[int, ...]


Step = list[PlannedEpisode]  # the episodes of one query and class


class Picture(NamedTuple):
    """One picture with all that the episodes of an evaluation ask of it.

    Attributes:
        number: Of the picture in its reader.
        image: (3, S, S) float32 RGB in 0..255, channels last in memory.
        masks: (S, S) uint8 for each class that it is a support of: 1 object, 0 background, 255 ignored.
        labels: (h, w) uint8, likewise, for each class that it is a query of.
    """

    number: int
    image: Tensor
    masks: dict[int, Tensor]
    labels: dict[int, Tensor]


def own_copy(picture: Picture) -> Picture:
    """The same in memory of this process alone.

    Of what a loader's process hands over each tensor is an open file in shared memory, and both are few.
    """
    masks, labels = ({c: t.clone() for c, t in tensors.items()} for tensors in (picture.masks, picture.labels))
    return Picture(picture.number, picture.image.clone(), masks, labels)


def with_seed(episodes: EpisodeDataset, seed: int) -> EpisodeDataset:
    """The same pictures, other episodes."""
    other = copy.copy(episodes)
    other.seed = seed
    return other


def plan_episodes(episodes: EpisodeDataset, seeds: Iterable[int], count: int) -> list[PlannedEpisode]:
    """The first `count` episodes of each seed, in the order of evaluation."""
    planned = []
    for seed in seeds:
        drawn = with_seed(episodes, seed)
        for i in range(count):
            class_id, query, supports = drawn.draw(i)
            planned.append(PlannedEpisode(class_id, query, seed, i, supports))
    return sorted(planned)


def plan_steps(planned: Sequence[PlannedEpisode], rank: int = 0, world: int = 1) -> list[Step]:
    """The steps of one of several processes: a stretch of the order, with about as many episodes for each."""
    steps = [list(group) for _, group in groupby(planned, key=lambda e: (e.class_id, e.query))]
    mine, before = [], 0
    for step in steps:
        middle = before + len(step) / 2
        if int(middle * world / len(planned)) == rank:
            mine.append(step)
        before += len(step)
    return mine


class PictureSteps(Dataset[list[Picture]]):
    """For each block of steps the pictures that no block before it used, each once.

    Args:
        episodes: Where pictures come from.
        blocks: Steps, some at a time.
    """

    def __init__(self, episodes: EpisodeDataset, blocks: Sequence[Sequence[Step]]) -> None:
        self.episodes = episodes
        self._supports: dict[int, set[int]] = {}  # the classes that a picture is a support of
        self._queries: dict[int, set[int]] = {}
        self._new: list[list[int]] = []
        seen: set[int] = set()
        for block in blocks:
            new: dict[int, None] = {}  # in order
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
        """Reads one picture, and prepares it as `EpisodeDataset` does."""
        pixels, labels = read(self.episodes.reader, number)
        image, masks = None, {}
        for class_id in sorted(self._supports.get(number, ())):
            mask = annotate(select(labels, class_id), self.episodes.support_annotation)
            image, mask = self.episodes.transform(pixels, mask, 0)
            masks[class_id] = torch.from_numpy(mask)
        queries = {c: select(labels, c) for c in sorted(self._queries.get(number, ()))}
        if image is None:
            image, _ = self.episodes.transform(pixels, next(iter(queries.values())), 0)
        return Picture(
            number,
            torch.from_numpy(image).permute(2, 0, 1),
            masks,
            {c: torch.from_numpy(label) for c, label in queries.items()},
        )
