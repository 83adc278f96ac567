"""Pictures with the labels of the base classes, for the base learner (BAM, stage 1).

Shapes: B batch, S image side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from fss.data.draws import draw_order
from fss.data.episodes import Transform, base_labels, read
from fss.data.index import Index
from fss.data.readers.reader import Reader


class LabelledImages(NamedTuple):
    """One picture; with a leading B in a batch.

    Attributes:
        images: (3, S, S) RGB in 0..255; uint8 in training, float32 in validation.
        labels: (S, S) uint8: base classes from 1 in their order, all else 0, 255 ignored.
        id: (), the global id.
        names: The picture's file.
    """

    images: Tensor
    labels: Tensor
    id: Tensor
    names: str | list[str]


def base_images(index: Index, images: int, base_classes: Sequence[int], keep_unlabelled: bool) -> np.ndarray:
    """Numbers of the pictures to learn from, ascending.

    Args:
        index: Of the reader.
        images: How many the reader has.
        base_classes: Base class ids.
        keep_unlabelled: Whether pictures without any base class stay in, as background, as published.
    """
    if keep_unlabelled:
        return np.arange(images)
    return np.unique(index.image[np.isin(index.class_id, list(base_classes))])


class BaseImages(Dataset[LabelledImages]):
    """Every picture once in each cycle of ids, in an order drawn anew each time; a pure function of (seed, id).

    Args:
        reader: Where pictures come from.
        images: Numbers of the pictures to use.
        base_classes: Base class ids, ascending.
        transform: Applied to each.
        seed: Another seed gives another order and augmentation.
    """

    def __init__(
        self,
        reader: Reader,
        images: np.ndarray,
        base_classes: Sequence[int],
        transform: Transform,
        seed: int,
    ) -> None:
        self.reader, self.images, self.base_classes = reader, images, list(base_classes)
        self.transform, self.seed = transform, seed

    def __getitem__(self, draw: int) -> LabelledImages:
        cycle, place = divmod(draw, len(self.images))
        number = int(self.images[draw_order(self.seed, cycle, len(self.images))[place]])
        image, labels = read(self.reader, number)
        seed = int(np.random.default_rng([self.seed, draw]).integers(2**31))
        image, labels = self.transform(image, base_labels(labels, self.base_classes), seed)
        return LabelledImages(
            torch.from_numpy(image).permute(2, 0, 1).contiguous(),
            torch.from_numpy(labels),
            torch.tensor(draw),
            self.reader.name(number),
        )
