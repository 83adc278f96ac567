"""Pictures labelled with base classes, for the base learner (BAM, stage 1).

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
    """One picture; in a batch, tensors have a leading dimension B.

    Attributes:
        images: (3, S, S) RGB in 0..255; uint8 in training, float32 in validation.
        labels: (S, S) uint8: base classes numbered from 1, everything else 0, ignored pixels 255.
        id: (), the global id of the draw.
        names: Path of the picture; a list of paths in a batch.
    """

    images: Tensor
    labels: Tensor
    id: Tensor
    names: str | list[str]


def base_images(index: Index, images: int, base_classes: Sequence[int], keep_unlabelled: bool) -> np.ndarray:
    """Selects the pictures to train on; returns their numbers in ascending order.

    Args:
        index: The reader's index.
        images: Number of pictures in the reader.
        base_classes: Base class ids.
        keep_unlabelled: Keep pictures without base classes as pure background, as published.
    """
    if keep_unlabelled:
        return np.arange(images)
    return np.unique(index.image[np.isin(index.class_id, list(base_classes))])


class BaseImages(Dataset[LabelledImages]):
    """Each cycle of ids visits every picture once, in a new random order; a pure function of (seed, id).

    Args:
        reader: Reader of the pictures.
        images: Numbers of the pictures to use.
        base_classes: Base class ids in ascending order.
        transform: Transform applied to each picture.
        seed: Seed for the order of pictures and their augmentation.
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
