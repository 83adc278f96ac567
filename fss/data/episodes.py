"""From a global episode id to one episode, as a pure function of (seed, id).

Shapes: B batch, K shots, S image side, h w original height and width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fss.data.index import Pool
from fss.data.reader import IGNORE, Reader


class Transform(Protocol):
    """image (h, w, 3) uint8 and mask (h, w) -> (S, S, 3) and (S, S), the same for the same seed."""

    def __call__(self, image: np.ndarray, mask: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]: ...


class Draw(NamedTuple):
    """What an episode is made of: a class, the query's picture number, the supports' picture numbers."""

    class_id: int
    query: int
    supports: tuple[int, ...]


class Episode(NamedTuple):
    """One episode; with a leading B in a batch, where `label` and `names` are lists.

    Attributes:
        query: (3, S, S) RGB in 0..255; uint8 in training, float32 in evaluation.
        query_mask: (S, S) uint8: 1 object, 0 background, 255 ignored.
        support: (K, 3, S, S), like query.
        support_mask: (K, S, S), like query_mask.
        class_id: ().
        id: (), the global episode id.
        label: (h, w) uint8, the query's mask at original size; empty unless asked for.
        names: The query's file, then the supports'.
    """

    query: Tensor
    query_mask: Tensor
    support: Tensor
    support_mask: Tensor
    class_id: Tensor
    id: Tensor
    label: Tensor | list[Tensor]
    names: Sequence


def collate(episodes: Sequence[Episode]) -> Episode:
    """A batch: tensors stacked; labels, which differ in size, and names as lists."""
    columns: dict[str, Any] = dict(zip(Episode._fields, zip(*episodes, strict=True), strict=True))
    lists = ("label", "names")
    batch: dict[str, Any] = {name: list(c) if name in lists else torch.stack(c) for name, c in columns.items()}
    return Episode(**batch)


class EpisodeDataset(Dataset[Episode]):
    """Episodes of some classes, for any id >= 0.

    Each query of the pool comes once in every `len(pool.queries)` successive ids, in an order that is drawn
    anew each time; its class is drawn uniformly from its eligible ones, the supports without replacement from
    that class's other pictures.

    Args:
        reader: Where pictures come from.
        pool: The pictures of the episodes.
        shot: K.
        seed: Another seed gives other episodes.
        transform: Applied to the query and each support independently.
        with_label: Whether to bring the query's mask at original size along.
    """

    def __init__(
        self, reader: Reader, pool: Pool, shot: int, seed: int, transform: Transform, with_label: bool = False
    ) -> None:
        self.reader, self.pool, self.shot, self.seed = reader, pool, shot, seed
        self.transform, self.with_label = transform, with_label

    def draw(self, episode_id: int) -> Draw:
        """What the episode is made of, without reading any picture."""
        return self._draw(episode_id, self._stream(episode_id))

    def __getitem__(self, episode_id: int) -> Episode:
        stream = self._stream(episode_id)
        class_id, query, supports = self._draw(episode_id, stream)
        numbers = [query, *supports]
        images, masks, label = [], [], np.empty((0, 0), np.uint8)
        for number in numbers:
            image, mask = self._read(number, class_id)
            if number == query and self.with_label:
                label = mask
            image, mask = self.transform(image, mask, int(stream.integers(2**31)))
            images.append(torch.from_numpy(image).permute(2, 0, 1))
            masks.append(torch.from_numpy(mask))
        return Episode(
            query=images[0].contiguous(),
            query_mask=masks[0],
            support=torch.stack(images[1:]),
            support_mask=torch.stack(masks[1:]),
            class_id=torch.tensor(class_id),
            id=torch.tensor(episode_id),
            label=torch.from_numpy(label),
            names=[self.reader.name(number) for number in numbers],
        )

    def _stream(self, episode_id: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, episode_id])

    def _draw(self, episode_id: int, stream: np.random.Generator) -> Draw:
        queries = self.pool.queries
        cycle, place = divmod(episode_id, len(queries))
        query = int(queries[_order(self.seed, cycle, len(queries))[place]])
        class_id = int(stream.choice(self.pool.classes_of[query]))
        others = self.pool.images_of[class_id]
        others = others[others != query]
        supports = stream.choice(others, self.shot, replace=False)
        return Draw(class_id, query, tuple(supports.tolist()))

    def _read(self, number: int, class_id: int) -> tuple[np.ndarray, np.ndarray]:
        """The picture, and 1 where its mask is the class, 255 where ignored, 0 elsewhere."""
        image, labels = self.reader.image(number), self.reader.mask(number)
        if image.shape[:2] != labels.shape:
            raise ValueError(
                f"{self.reader.name(number)}: the picture is {image.shape[1]} x {image.shape[0]} pixels, its mask "
                f"{labels.shape[1]} x {labels.shape[0]}; give both the same size"
            )
        mask = (labels == class_id).astype(np.uint8)
        mask[labels == IGNORE] = IGNORE
        return image, mask


@lru_cache(maxsize=8)  # successive ids ask for the same order; a few data sets may alternate
def _order(seed: int, cycle: int, n: int) -> np.ndarray:
    # a stream of its own: [seed, id] belongs to the episodes
    return np.random.default_rng([seed, cycle, n]).permutation(n)
