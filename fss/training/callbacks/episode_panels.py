"""Pictures of validation episodes in loggers."""

from __future__ import annotations

from typing import Any

import lightning

from fss.data.episodes import Episode
from fss.evaluation.episode_pictures import draw
from fss.training.logs import log_episodes, shows_pictures
from fss.visualize import EpisodePicture


class EpisodePanels(lightning.Callback):
    """Shows the first validation episodes, which are the same each time, in loggers that show pictures.

    Args:
        episodes: How many; 0 shows none.
        every_n_epochs: How often.
    """

    def __init__(self, episodes: int, every_n_epochs: int = 1) -> None:
        if episodes < 0 or every_n_epochs < 1:
            raise ValueError(
                f"panels.episodes={episodes}, panels.every_n_epochs={every_n_epochs}: must be at least 0 and 1"
            )
        self.episodes, self.every_n_epochs = episodes, every_n_epochs
        self._pictures: list[EpisodePicture] = []

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._pictures = []

    def on_validation_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Episode,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking
        if due and trainer.is_global_zero and shows_pictures(trainer):
            names = trainer.datamodule.class_names  # type: ignore[attr-defined]
            self._pictures += draw(batch, outputs["prediction"], names, self.episodes - len(self._pictures))

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._pictures:
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            log_episodes(trainer, self._pictures, [datamodule.class_names[c - 1] for c in datamodule.base_classes])
            self._pictures = []
