"""Episodes of the generalised setting: the query may show base classes, the novel class asked for, or not.

Lang et al., BAM (CVPR 2022, stage 4 of the published program).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fss.data.episodes import EpisodeDataset, base_labels
from fss.data.index import Index, Pool, classes_by_image


def generalized_pool(index: Index, pool: Pool, base_classes: Sequence[int], min_pixels: int) -> Pool:
    """Every picture as a query; its novel class need not be in it.

    A picture with base classes is asked for any novel class, one without for a novel class that it shows.

    Args:
        index: Of the reader.
        pool: Of the novel classes; says which pictures are supports.
        base_classes: Base class ids.
        min_pixels: A picture shows a novel class from this many pixels on; base classes count of any size.
    """
    images, novel = np.unique(index.image), tuple(sorted(pool.images_of))
    base = classes_by_image(index, images, base_classes, 1)
    own = classes_by_image(index, images, novel, min_pixels)
    classes_of = {image: novel if base[image] or not own[image] else own[image] for image in images.tolist()}
    return Pool(images, classes_of, pool.images_of, pool.left_out)


class GeneralizedEpisodes(EpisodeDataset):
    """Episodes of a `generalized_pool`.

    Labels hold base classes from 1 in their order, then the novel class; other novel classes are background.
    """

    def _label(self, labels: np.ndarray, class_id: int) -> np.ndarray:
        label = base_labels(labels, self.base_classes)
        label[labels == class_id] = len(self.base_classes) + 1
        return label
