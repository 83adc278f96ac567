"""Early stopping that a resumed run remembers."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch import callbacks


class EarlyStopping(callbacks.EarlyStopping):  # of the same name, by which checkpoints know its state
    """Lightning's, which a resumed run remembers: one that it has ended is not trained on.

    A larger `patience` than that of the checkpoint goes on, up to its own end.
    """

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({**state_dict, "patience": self.patience})

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # Lightning forgets that training was to stop, and would train another epoch before it looks
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience
