"""Episodes of the generalised setting, whose queries may show base classes and need not show the novel class.

Lang et al., BAM (CVPR 2022, stage 4 of the published program).
"""

from __future__ import annotations

import numpy as np

from fss.data.episodes import Draw, EpisodeDataset, base_labels, draw_order
from fss.data.index import Index


class GeneralizedEpisodes(EpisodeDataset):
    """Each cycle uses every picture once as query; the query need not show the episode's novel class.

    A query with base classes is paired with any novel class, one without them with a novel class that it shows.
    Labels number the base classes from 1, followed by the novel class; other novel classes are background.

    Args:
        index: The reader's index.
        kwargs: Arguments of `EpisodeDataset`; the pool's classes are the novel classes.
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
