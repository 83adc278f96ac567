"""Pictures of test episodes as one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning

from fss.data.episodes import Episode
from fss.heads import Prediction
from fss.metrics import intersection_and_union
from fss.visualize import EpisodePicture, save_sheet


class ContactSheet(lightning.Callback):
    """Writes pictures of the first test episodes.

    Args:
        path: PNG to write.
        episodes: How many; 0 writes nothing.
    """

    def __init__(self, path: str, episodes: int) -> None:
        self.path, self.episodes = Path(path), episodes
        self._pictures: list[EpisodePicture] = []

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._pictures = []

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Episode,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        self._pictures += draw(batch, outputs["prediction"], names, self.episodes - len(self._pictures))

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._pictures and trainer.is_global_zero:
            save_sheet(self._pictures, self.path)


def draw(batch: Episode, prediction: Prediction, names: Sequence[str], limit: int) -> list[EpisodePicture]:
    """What is shown of the first episodes of a batch.

    Args:
        batch: The episodes.
        prediction: The answer to them.
        names: Of all classes; class id c is at c - 1.
        limit: At most so many.
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
