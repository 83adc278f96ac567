"""Shows the progress of a run: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any

import lightning
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from lightning.pytorch.callbacks.progress.rich_progress import RichProgressBarTheme
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn

from fss.training.callbacks.speed import KEY as SPEED

SHOWN = {"train/loss": "loss", "val/miou": "mIoU", "val/fb_iou": "FB-IoU", SPEED: "episodes/s"}
DECIMALS = {"episodes/s": 1}


def progress_display() -> ProgressBar:
    """A progress bar in a terminal; elsewhere (for example in a log file), occasional lines."""
    return TerminalBar() if get_console().is_interactive else LogLines()


class _Clock:
    """Estimates when training will end, from the steps since it started or was resumed."""

    def __init__(self, trainer: lightning.Trainer) -> None:
        self.began, self.first_step = time.monotonic(), trainer.global_step

    def left(self, trainer: lightning.Trainer) -> str:
        """Time left as hours, minutes and seconds, assuming validation as frequent as so far."""
        done = trainer.global_step - self.first_step
        if done < 1:
            return "-:--:--"
        steps = trainer.estimated_stepping_batches - trainer.global_step
        seconds = (time.monotonic() - self.began) / done * steps
        return str(timedelta(seconds=round(seconds)))


def _metrics(trainer: lightning.Trainer) -> dict[str, str]:
    """Formatted values of the metrics known so far, by displayed name."""
    known = trainer.progress_bar_metrics
    return {
        shown: f"{float(known[name]):.{DECIMALS.get(shown, 3)}f}" for name, shown in SHOWN.items() if name in known
    }


class TerminalBar(RichProgressBar):
    """Lightning's bar with few-shot scores, the time left in this epoch and (ETA) in the whole training."""

    def __init__(self) -> None:
        super().__init__(refresh_rate=10, theme=RichProgressBarTheme(metrics="", metrics_text_delimiter="  "))
        self._clock: _Clock | None = None

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._clock = _Clock(trainer)

    def configure_columns(self, trainer: lightning.Trainer) -> list[ProgressColumn]:
        return [
            TextColumn("{task.description}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
        ]

    def get_metrics(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> dict[str, Any]:
        left = {"ETA": self._clock.left(trainer)} if self._clock is not None else {}
        shown = _metrics(trainer)
        shown.pop("FB-IoU", None)  # would not fit in the line
        return {**shown, **left}


class LogLines(ProgressBar):
    """Prints a line after every validation and, by default, one per minute in between.

    Args:
        seconds: Minimum number of seconds between two lines.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        super().__init__()
        self.seconds, self._enabled = seconds, True
        self._clock: _Clock | None = None
        self._last = time.monotonic()

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._clock, self._last = _Clock(trainer), time.monotonic()

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if self._is_due():
            self._training_line(trainer)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if not trainer.sanity_checking and self._is_due():
            self._line(f"  validation {args[3] + 1}/{trainer.num_val_batches[0]}")

    def on_validation_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        if not trainer.sanity_checking:
            self._training_line(trainer)

    def on_test_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._test_began = self._last = time.monotonic()

    def on_test_batch_end(self, trainer: lightning.Trainer, *args: Any) -> None:
        if self._is_due():
            done, total = args[3] + 1, trainer.num_test_batches[0]
            seconds = (time.monotonic() - self._test_began) / done * (total - done)
            self._line(f"test {done}/{total}  ETA {timedelta(seconds=round(seconds))}")

    def _is_due(self) -> bool:
        return time.monotonic() - self._last >= self.seconds

    def _training_line(self, trainer: lightning.Trainer) -> None:
        steps = f"step {trainer.global_step}/{trainer.estimated_stepping_batches}"
        numbers = "  ".join(f"{name} {value}" for name, value in _metrics(trainer).items())
        left = "" if self._clock is None else f"  ETA {self._clock.left(trainer)}"
        self._line(f"epoch {trainer.current_epoch}  {steps}  {numbers}{left}")

    def _line(self, text: str) -> None:
        if self._enabled:
            print(text, flush=True)
        self._last = time.monotonic()
