"""Episodes of the generalised setting, whose queries may show base classes and need not show the novel class.

Lang et al., BAM (CVPR 2022, stage 4 of the published program).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fss.data.episodes import EpisodeDataset, base_labels
from fss.data.index import Index, Pool, classes_by_image


def generalized_pool(index: Index, pool: Pool, base_classes: Sequence[int], min_pixels: int) -> Pool:
    """Makes every picture a query, which need not show the episode's novel class.

    A query with base classes is paired with any novel class, one without them with a novel class that it shows.

    Args:
        index: The reader's index.
        pool: Pool of the novel classes, which defines the supports.
        base_classes: Base class ids.
        min_pixels: Minimum number of pixels for a picture to show a novel class; base classes count at any size.
    """
    images, novel = np.unique(index.image), tuple(sorted(pool.images_of))
    base = classes_by_image(index, images, base_classes, 1)
    own = classes_by_image(index, images, novel, min_pixels)
    classes_of = {image: novel if base[image] or not own[image] else own[image] for image in images.tolist()}
    return Pool(images, classes_of, pool.images_of, pool.left_out)


class GeneralizedEpisodes(EpisodeDataset):
    """Episodes of a `generalized_pool`."""

    def label(self, labels: np.ndarray, class_id: int) -> np.ndarray:
        """Base classes from 1 in their order, then the novel class; other novel classes are background."""
        label = base_labels(labels, self.base_classes)
        label[labels == class_id] = len(self.base_classes) + 1
        return label
