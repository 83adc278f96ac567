"""Makes the random numbers of a training step a function of seed and position."""

from __future__ import annotations

import random
from typing import Any

import lightning
import numpy as np
import torch


class StepSeeds(lightning.Callback):
    """Seeds the generators of Python, numpy and torch at every training step.

    Random numbers (for dropout) thus depend only on seed, step and process, not on earlier validations or stops.

    Args:
        seed: Seed of the run, at least 0.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any
    ) -> None:
        stream = [self.seed, trainer.fit_loop.total_batch_idx, trainer.global_rank]
        for_python, for_numpy, for_torch = np.random.SeedSequence(stream).generate_state(3).tolist()
        random.seed(for_python)
        np.random.seed(for_numpy)
        torch.manual_seed(for_torch)
