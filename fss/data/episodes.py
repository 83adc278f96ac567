"""Episodes as a pure function of the seed and a global episode id.

Shapes: B batch, K shots, S image side, h w original height and width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fss.data.draws import Draw, MakeDraws, Shuffled
from fss.data.index import Pool
from fss.data.readers.reader import Reader
from fss.data.support_masks import SupportAnnotation, select, support_mask
from fss.geometry import Geometry
from fss.labels import IGNORE, MAX_CLASSES


class Transform(Protocol):
    """Maps an image (h, w, 3) uint8 and masks (h, w) to (S, S, 3) and (S, S); deterministic for a given seed."""

    def __call__(
        self, image: np.ndarray, mask: np.ndarray, seed: int, base_mask: np.ndarray | None = None
    ) -> tuple[np.ndarray, ...]: ...


class Episode(NamedTuple):
    """One episode; in a batch, tensors have a leading dimension B, and `label` and `names` are lists.

    Images keep the memory format in which they were decoded (channels last), which networks prefer and which
    saves a conversion.

    Attributes:
        query: (3, S, S) RGB in 0..255; uint8 in training, float32 in evaluation.
        query_mask: (S, S) uint8: 1 object, 0 background, 255 ignored.
        support: (K, 3, S, S), like `query`.
        support_mask: (K, S, S), like `query_mask`.
        base_mask: (S, S) uint8, the query's base classes numbered from 1; 0 for no base class, 255 ignored; empty
            unless requested.
        class_id: (), the class to segment.
        own_class: (), position of `class_id` among the base classes, from 0; -1 for a novel class.
        id: (), the global episode id.
        label: (h, w) uint8, the query's mask at original size; empty unless requested.
        names: Path of the query, followed by the paths of the supports.
    """

    query: Tensor
    query_mask: Tensor
    support: Tensor
    support_mask: Tensor
    base_mask: Tensor
    class_id: Tensor
    own_class: Tensor
    id: Tensor
    label: Tensor | list[Tensor]
    names: Sequence


def collate(episodes: Sequence[Episode]) -> Episode:
    """Builds a batch: stacks tensors; labels, which differ in size, and names become lists."""
    columns: dict[str, Any] = dict(zip(Episode._fields, zip(*episodes, strict=True), strict=True))
    stack: dict[str, Callable[..., Any]] = {
        "query": stack_pictures,
        "support": stack_pictures,
        "label": list,
        "names": list,
    }
    batch: dict[str, Any] = {name: stack.get(name, torch.stack)(column) for name, column in columns.items()}
    return Episode(**batch)


def stack_pictures(pictures: Sequence[Tensor]) -> Tensor:
    """Stacks images (..., 3, S, S) along a new first dimension and keeps them channels-last in memory."""
    return torch.stack([picture.movedim(-3, -1) for picture in pictures]).movedim(-1, -3)


class EpisodeDataset(Dataset[Episode]):
    """Episodes of the pool's classes, for any id >= 0.

    Args:
        reader: Reader of the pictures.
        pool: The pictures from which episodes are drawn.
        shot: Supports per episode (K).
        seed: Seed of the episodes.
        transform: Transform applied independently to the query and each support.
        with_label: Include the query's mask at original size.
        base_classes: Base class ids in ascending order, for `own_class` and `base_mask`.
        with_base_mask: Include `base_mask`.
        support_annotation: what a support's mask shows; see `support_mask`.
        draws: How class, query and supports are drawn.
    """

    def __init__(
        self,
        reader: Reader,
        pool: Pool,
        shot: int,
        seed: int,
        transform: Transform,
        with_label: bool = False,
        base_classes: Sequence[int] = (),
        with_base_mask: bool = False,
        support_annotation: SupportAnnotation = "mask",
        draws: MakeDraws = Shuffled,
    ) -> None:
        self.reader, self.pool, self.shot, self.seed = reader, pool, shot, seed
        self.transform, self.with_label = transform, with_label
        self.base_classes, self.with_base_mask = list(base_classes), with_base_mask
        self.support_annotation = support_annotation
        self._draws = draws(pool, shot)

    @property
    def geometry(self) -> Geometry:
        """How the transform places pictures in the square; as published, if it does not say."""
        return getattr(self.transform, "geometry", "published")

    def draw(self, episode_id: int) -> Draw:
        """Draws the episode's class, query and supports without reading any picture."""
        return self._draws.draw(self.seed, episode_id, self._stream(episode_id))

    def __getitem__(self, episode_id: int) -> Episode:
        stream = self._stream(episode_id)
        class_id, query, supports = self._draws.draw(self.seed, episode_id, stream)
        numbers = [query, *supports]
        images, masks = [], []
        label = base_mask = np.empty((0, 0), np.uint8)
        for number in numbers:
            image, labels = read(self.reader, number)
            seed = int(stream.integers(2**31))
            if number != query:
                mask = support_mask(labels, class_id, self.support_annotation)
                image, mask = self.transform(image, mask, seed)
            else:
                mask = select(labels, class_id)
                label = self.label(labels, class_id) if self.with_label else label
                if self.with_base_mask:
                    image, mask, base_mask = self.transform(
                        image, mask, seed, base_labels(labels, self.base_classes)
                    )
                else:
                    image, mask = self.transform(image, mask, seed)
            images.append(torch.from_numpy(image).permute(2, 0, 1))
            masks.append(torch.from_numpy(mask))
        return Episode(
            query=images[0],
            query_mask=masks[0],
            support=stack_pictures(images[1:]),
            support_mask=torch.stack(masks[1:]),
            base_mask=torch.from_numpy(base_mask),
            class_id=torch.tensor(class_id),
            own_class=torch.tensor(self.base_classes.index(class_id) if class_id in self.base_classes else -1),
            id=torch.tensor(episode_id),
            label=torch.from_numpy(label),
            names=[self.reader.name(number) for number in numbers],
        )

    def _stream(self, episode_id: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, episode_id])

    def label(self, labels: np.ndarray, class_id: int) -> np.ndarray:
        """What answers are compared with, of a query's class ids (h, w): 1 object, 0 background, 255 ignored."""
        return select(labels, class_id)


def read(reader: Reader, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Reads a picture (h, w, 3) and its labels (h, w).

    Raises:
        ValueError: If the two differ in size.
    """
    image, labels = reader.image(number), reader.mask(number)
    if labels.ndim != 2 or image.shape[:2] != labels.shape:
        raise ValueError(
            f"{reader.name(number)}: the picture has shape {image.shape}, but its mask {labels.shape}; the mask "
            "must have one value for each pixel of the picture"
        )
    return image, labels


def base_labels(labels: np.ndarray, base_classes: Sequence[int]) -> np.ndarray:
    """Renumbers class ids (h, w) for a base learner: base classes from 1, all others 0; 255 is kept."""
    if len(base_classes) > MAX_CLASSES:
        raise ValueError(
            f"{len(base_classes)} base classes: a base learner can have at most {MAX_CLASSES}; use a method "
            "without one, such as method=pfenet"
        )
    table = np.zeros(np.iinfo(labels.dtype).max + 1, np.uint8)
    table[list(base_classes)] = np.arange(1, len(base_classes) + 1)
    table[-1] = IGNORE
    return table[labels]
