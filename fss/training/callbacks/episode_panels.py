"""Shows validation episodes in loggers."""

from __future__ import annotations

from typing import Any

import lightning

from fss.data.episodes import Episode
from fss.evaluation.episode_pictures import draw
from fss.training.logs import log_episodes, shows_pictures
from fss.visualize import EpisodePicture


class EpisodePanels(lightning.Callback):
    """Shows the first validation episodes, which are always the same, in loggers that can show pictures.

    Args:
        episodes: Number of episodes to show; 0 shows none.
        every_n_epochs: Number of epochs between two showings, at least 1.
    """

    def __init__(self, episodes: int, every_n_epochs: int = 1) -> None:
        if episodes < 0 or every_n_epochs < 1:
            raise ValueError(
                f"panels.episodes={episodes} must be at least 0, panels.every_n_epochs={every_n_epochs} at least 1"
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
