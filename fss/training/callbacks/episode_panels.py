"""Shows validation episodes in loggers."""

from __future__ import annotations

from typing import Any

import lightning

from fss.evaluation.engine import pictures_of
from fss.training.logs import log_episodes, shows_pictures


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

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0 and not trainer.sanity_checking
        if not due or self.episodes == 0 or not trainer.is_global_zero or not shows_pictures(trainer):
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        learner: Any = pl_module
        first = range(min(self.episodes, data.val_episodes))
        # a validation answers episodes in an order of its own, so the first ones are answered once more
        pictures = pictures_of(trainer, learner.evaluated, data.evaluation, data.eval_seed, first)
        log_episodes(trainer, pictures, [data.class_names[c - 1] for c in data.base_classes])
