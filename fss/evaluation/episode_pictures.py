"""Converts batches of episodes and their predictions to drawable episodes."""

from __future__ import annotations

from collections.abc import Sequence

from fss.data.episodes import Episode
from fss.metrics import intersection_and_union
from fss.models.heads import Prediction
from fss.visualize import EpisodePicture


def draw(batch: Episode, prediction: Prediction, names: Sequence[str], limit: int) -> list[EpisodePicture]:
    """Prepares the first episodes of a batch for drawing.

    Args:
        batch: The episodes.
        prediction: Their prediction.
        names: Names of all classes; class id c has index c - 1.
        limit: Maximum number of episodes.
    """
    pictures = []
    for i in range(min(len(batch.query), limit)):
        mask = prediction.logits[i].argmax(0)
        intersection, union = intersection_and_union(mask, batch.query_mask[i])
        pictures.append(
            EpisodePicture(
                title=names[int(batch.class_id[i]) - 1],
                iou=float(intersection[1] / union[1].clamp(min=1)),
                query=batch.query[i],
                query_mask=batch.query_mask[i],
                support=batch.support[i],
                support_mask=batch.support_mask[i],
                prediction=mask,
                prior=prediction.prior[i, 0],
                base=None if prediction.base is None else prediction.base[i].argmax(0),
            )
        )
    return pictures
