"""Stops a run whose loss or weights are no longer finite."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning
import torch
from torch import Tensor

from fss.processes import group
from fss.training.diverged import MEND


class _Step(NamedTuple):
    epoch: int
    number: int
    loss: Tensor
    ids: Tensor  # (B,)
    names: Sequence[str | Sequence[str]]  # files of each of the B episodes


class FiniteLoss(lightning.Callback):
    """Stops a run whose loss is infinite or NaN, and names the episodes of that step.

    A step with a finite loss can leave weights that are not: no checkpoint of them is written.

    On a GPU, reading the loss waits for all pending work, so several steps are checked together, and always before
    a checkpoint is written.

    Args:
        every_n_steps: Maximum number of steps checked together.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        self.every_n_steps = every_n_steps
        self._steps: list[_Step] = []

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        step = _Step(trainer.current_epoch, batch_idx, outputs["loss"].detach(), batch.id, batch.names)
        self._steps.append(step)
        if pl_module.device.type == "cpu" or len(self._steps) >= self.every_n_steps:
            self._look(pl_module)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self._look(pl_module)
        for name, weight in pl_module.named_parameters():
            if weight.requires_grad and not weight.isfinite().all():
                raise FloatingPointError(
                    f"{name} holds NaN or infinite values after step {trainer.global_step}: {MEND}. The last "
                    "checkpoint is from before that"
                )

    def _look(self, pl_module: lightning.LightningModule) -> None:
        """Checks the steps since the last check.

        Raises:
            FloatingPointError: If the loss of one is not finite, on this process or another.
        """
        steps, self._steps = self._steps, []
        if not steps:
            return
        finite = torch.stack([step.loss for step in steps]).isfinite().tolist()
        first = finite.index(False) if not all(finite) else len(steps)
        # all processes take the same number of steps, and therefore check the same ones
        if group.largest(int(not all(finite)), pl_module.device):
            described = [_describe(steps[first])] if first < len(steps) else []
            lists = group.gather(described)
            raise FloatingPointError("\n".join(text for texts in lists for text in texts))  # type: ignore[attr-defined]


def _describe(step: _Step) -> str:
    lines = [
        f"the loss of step {step.number} of epoch {step.epoch} is {step.loss.item()}. Its episodes or pictures:",
        *(
            f"  {number}: {names if isinstance(names, str) else ', '.join(names)}"
            for number, names in zip(step.ids.tolist(), step.names, strict=True)
        ),
        f"Check these files; if they are fine, {MEND}. The last checkpoint is from before that step.",
    ]
    return "\n".join(lines)
