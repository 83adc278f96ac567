"""Episodes of the generalised setting: the query may show base classes, the novel class asked for, or not.

Lang et al., BAM (CVPR 2022, stage 4 of the published program).
"""

from __future__ import annotations

import numpy as np

from fss.data.episodes import Draw, EpisodeDataset, base_labels, draw_order
from fss.data.index import Index


class GeneralizedEpisodes(EpisodeDataset):
    """Every picture is a query once in a cycle; its novel class need not be in it.

    A picture with base classes is asked for any novel class, one without for a novel class that it shows. Labels
    hold base classes from 1 in their order, then the novel class; other novel classes are background.

    Args:
        index: Of the reader.
        kwargs: As for `EpisodeDataset`; the pool's classes are the novel ones.
    """

    def __init__(self, index: Index, **kwargs: object) -> None:
        super().__init__(**kwargs)  # type: ignore[arg-type]
        self._images = np.unique(index.image)
        base = np.isin(index.class_id, self.base_classes)
        self._with_base = set(index.image[base].tolist())
        self._novel = sorted(self.pool.images_of)

    def _draw(self, episode_id: int, stream: np.random.Generator) -> Draw:
        cycle, place = divmod(episode_id, len(self._images))
        query = int(self._images[draw_order(self.seed, cycle, len(self._images))[place]])
        own = self.pool.classes_of.get(query, ())
        candidates = self._novel if query in self._with_base or not own else own
        class_id = int(stream.choice(candidates))
        return Draw(class_id, query, self._supports(class_id, query, stream))

    def _label(self, labels: np.ndarray, class_id: int) -> np.ndarray:
        label = base_labels(labels, self.base_classes)
        label[labels == class_id] = len(self.base_classes) + 1
        return label
