"""Episodes that ask for several classes at once, or for a class that the query does not show.

Shapes: N classes, K shots, S image side, h w original height and width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fss.data.episodes import EpisodeDataset, read, stack_pictures
from fss.data.support_masks import support_mask
from fss.labels import IGNORE, ignored


class SeveralDraw(NamedTuple):
    """What an episode is made of.

    Attributes:
        query: The query's picture number.
        supports: For each class id asked for, ascending, its supports' picture numbers.
    """

    query: int
    supports: dict[int, tuple[int, ...]]


class SeveralEpisode(NamedTuple):
    """One episode.

    Attributes:
        classes: The N class ids asked for, ascending.
        query: (3, S, S) float32 RGB in 0..255.
        label: (h, w) uint8 at original size: 0 background, 1..N the classes in their order, 255 ignored.
        support: (N, K, 3, S, S), like `query`.
        support_mask: (N, K, S, S) uint8: 1 object, 0 background, 255 ignored.
    """

    classes: tuple[int, ...]
    query: Tensor
    label: Tensor
    support: Tensor
    support_mask: Tensor


class SeveralEpisodes(Dataset[SeveralEpisode]):
    """The episodes of a data set, each asking for further classes.

    Args:
        episodes: Gives the first class of an episode with its supports, and the query.
        showing: For each class the pictures that show it at any size.
        pictures: Number of pictures, from 0, of which queries without the class are drawn.
        classes: Number of classes N that an episode asks for; the further ones may be in the query or not.
        absent: Whether every other episode takes a query that shows none of its classes.

    Raises:
        ValueError: If there are fewer classes, or no picture without a class.
    """

    def __init__(
        self,
        episodes: EpisodeDataset,
        showing: Mapping[int, np.ndarray],
        pictures: int,
        classes: int = 1,
        absent: bool = False,
    ) -> None:
        known = sorted(episodes.pool.images_of)
        if not 1 <= classes <= len(known):
            raise ValueError(f"classes={classes}: must be 1 to {len(known)}, the number of evaluated classes")
        self.episodes, self.classes, self.absent = episodes, classes, absent
        self._known, self._pictures = known, pictures
        self._showing = {c: np.asarray(showing[c]) for c in known}
        if absent and (everywhere := [c for c in known if len(self._showing[c]) == pictures]):
            raise ValueError(f"setting=absent: every picture shows {episodes.reader.classes[everywhere[0] - 1]}")

    def draw(self, episode_id: int) -> SeveralDraw:
        """Draws an episode without reading any picture; a function of the seed and id alone."""
        first, query, supports = self.episodes.draw(episode_id)
        stream = np.random.default_rng([self.episodes.seed, episode_id, 1])
        others = stream.choice([c for c in self._known if c != first], self.classes - 1, replace=False)
        drawn = {first: supports}
        for class_id in others.tolist():
            images = self.episodes.pool.images_of[class_id]
            images = images[images != query]
            drawn[class_id] = tuple(stream.choice(images, self.episodes.shot, replace=False).tolist())
        if self.absent and episode_id % 2:
            shown = np.concatenate([self._showing[c] for c in drawn])
            without = np.setdiff1d(np.arange(self._pictures), shown)
            if len(without):  # with several classes, every picture may show one of them
                query = int(stream.choice(without))
        return SeveralDraw(query, dict(sorted(drawn.items())))

    def __getitem__(self, episode_id: int) -> SeveralEpisode:
        query, drawn = self.draw(episode_id)
        reader, transform = self.episodes.reader, self.episodes.transform
        pixels, labels = read(reader, query)
        label = np.zeros(labels.shape, np.uint8)
        for position, class_id in enumerate(drawn, start=1):
            label[labels == class_id] = position
        label[ignored(labels)] = IGNORE
        image, _ = transform(pixels, label, 0)
        images, masks = [], []
        for class_id, supports in drawn.items():
            for number in supports:
                support, marks = read(reader, number)
                mask = support_mask(marks, class_id, self.episodes.support_annotation)
                square, small = transform(support, mask, 0)
                images.append(torch.from_numpy(square).permute(2, 0, 1))
                masks.append(torch.from_numpy(small))
        shape = (len(drawn), self.episodes.shot)
        return SeveralEpisode(
            tuple(drawn),
            torch.from_numpy(image).permute(2, 0, 1),
            torch.from_numpy(label),
            stack_pictures(images).unflatten(0, shape),
            torch.stack(masks).unflatten(0, shape),
        )
