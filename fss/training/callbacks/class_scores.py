"""Reports the IoU of each class after every validation."""

from __future__ import annotations

from typing import Any

import lightning
from rich import get_console
from rich.columns import Columns
from rich.table import Table
from rich.text import Text

from fss.training.logs import log_class_iou


class ClassScores(lightning.Callback):
    """Logs the IoU of each class and prints it, as a table in a terminal and as a line elsewhere.

    The module must have `class_iou` and the data module `class_names`.
    """

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        names = trainer.datamodule.class_names  # type: ignore[attr-defined]
        learner: Any = pl_module
        class_iou = {names[class_id - 1]: iou for class_id, iou in learner.class_iou.items()}
        log_class_iou(trainer, "val", class_iou)
        console = get_console()
        if console.is_interactive:
            console.print(f"Validation after epoch {trainer.current_epoch}")
            console.print(class_tables(class_iou))
        else:
            scores = "  ".join(f"{name} {iou:.3f}" for name, iou in class_iou.items())
            console.print(Text(f"  {scores}"), soft_wrap=True)


def class_tables(class_iou: dict[str, float], rows: int = 10) -> Columns:
    """Tables of classes and their IoU, side by side, with at most `rows` rows each."""
    items = list(class_iou.items())
    parts = []
    for first in range(0, len(items), rows):
        table = Table("class")
        table.add_column("IoU", justify="right")
        for name, iou in items[first : first + rows]:
            table.add_row(Text(name), f"{iou:.3f}")  # not parsed as markup
        parts.append(table)
    return Columns(parts)
