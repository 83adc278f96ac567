"""Measures the training speed in episodes per second."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import lightning

STEPS = 20  # number of steps over which the speed is measured
KEY = "train/episodes_per_second"


class Speed(lightning.Callback):
    """Logs episodes (pictures, for a base learner) per second over all processes and an epoch's last 20 steps."""

    def __init__(self) -> None:
        self._ends: deque[tuple[float, int]] = deque(maxlen=STEPS + 1)  # end time and episodes of each step

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Reset in each epoch, so that validation does not count. This is not called for a resumed epoch.
        self._ends.clear()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._ends.append((time.perf_counter(), len(batch[0]) * trainer.world_size))
        (first, begun), (last, _) = self._ends[0], self._ends[-1]
        if last > first:
            episodes = sum(count for _, count in self._ends) - begun
            pl_module.log(KEY, episodes / (last - first), prog_bar=True, batch_size=1)
