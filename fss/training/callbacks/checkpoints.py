"""Checkpoints that let a run stop at any moment and resume as if nothing had happened.

Everything that determines the next step is stored in a checkpoint (weights, optimiser, schedule, best scores and
position) or follows from it: episodes and random numbers are functions of seed and position.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import lightning
import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from fss.files.whole import NotWrittenError, whole
from fss.processes import group
from fss.training.run_folder import LAST

logger = logging.getLogger(__name__)

STOPPED = os.EX_TEMPFAIL  # exit code of a run stopped by a signal: 75, "try again later"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # sent by clusters before they take a machine away
INTERRUPTED = 128 + signal.SIGINT  # exit code after Ctrl-C, as shells count it

_GO_ON, _SAVE, _STOP = range(3)


class WholeCheckpoints(TorchCheckpointIO):
    """Writes checkpoints atomically: after a failure, a checkpoint is either complete on disk or not there."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Writes to a temporary file, which is renamed once all of it is on disk.

        Raises:
            OSError: If it could not be written; an older checkpoint of that name is left unchanged.
        """
        try:
            with whole(Path(path)) as unfinished, unfinished.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            reason = error.__cause__ if isinstance(error, NotWrittenError) else error
            raise OSError(
                f"the checkpoint {path} could not be written ({reason}): is the disk full? Older checkpoints are "
                "intact; free some space and continue with the same command and resume=true"
            ) from error


class BestCheckpoint(ModelCheckpoint):
    """Keeps the checkpoints of the best validations.

    Args:
        folder: Folder of the run's checkpoints.
        filename: File name without suffix; must contain `{epoch}` and `{step}` if several are kept.
        keep: Number of checkpoints to keep.
    """

    def __init__(self, folder: Path, filename: str = "best", keep: int = 1) -> None:
        super().__init__(
            folder,
            filename,
            monitor="val/miou",
            mode="max",
            save_top_k=keep,
            auto_insert_metric_name=False,
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:  # several callbacks may differ only in their file names
        return f"{super().state_key}{self.filename}"

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the scores even if the run folder has been moved."""
        folder = Path(self.dirpath or "")

        def here(path: str) -> str:
            if path and not Path(path).name.endswith(".ckpt"):  # it will be deleted when a better one is saved
                raise ValueError(f"a checkpoint names {path!r:.200} as another one, which is no checkpoint's name")
            return str(folder / Path(path).name) if path else path

        moved = {name: here(state_dict[name]) for name in ("best_model_path", "kth_best_model_path")}
        scores = {here(path): score for path, score in state_dict["best_k_models"].items()}
        super().load_state_dict({**state_dict, **moved, "best_k_models": scores, "dirpath": self.dirpath})


class LastCheckpoint(Checkpoint):
    """Keeps `last.ckpt` up to date, and stops the run cleanly when it receives a signal.

    The checkpoint is written at the end of each epoch, before each validation, and every `minutes` in between.
    After SIGTERM or SIGUSR1, the step is finished, the checkpoint written, and the program exits with code 75;
    after Ctrl-C, it does the same with code 130. A second Ctrl-C ends it immediately.

    Args:
        folder: Folder of the run's checkpoints.
        minutes: Minutes of training that may be lost if the machine fails; 0 writes after every step, None never
            writes within an epoch.
    """

    def __init__(self, folder: Path, minutes: float | None) -> None:
        self.path, self.minutes = folder / LAST, minutes
        self._told: int | None = None  # the signal received, if any
        self._written = time.monotonic()
        self._validation_comes = False

    def on_sanity_check_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._listen()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._listen()
        self._written = time.monotonic()

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any
    ) -> None:
        loop = trainer.fit_loop
        # After the last batch, a checkpoint follows anyway; accumulated gradients could not be stored in one.
        if loop.epoch_loop.batch_progress.is_last_batch or loop._should_accumulate():
            return
        due = self.minutes is not None and time.monotonic() - self._written >= 60 * self.minutes
        wanted = self._wanted(pl_module, _SAVE if due else _GO_ON)
        if wanted != _GO_ON:
            self._save(trainer)
        if wanted == _STOP:
            self._leave(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        self._validation_comes = True
        self._save(trainer)
        self._validation_comes = False
        if self._wanted(pl_module) == _STOP:
            self._leave(trainer)

    def on_validation_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *args: Any
    ) -> None:
        # Processes may have different numbers of batches, so several of them agree only at the end.
        if self._told is not None and group.count() == 1 and not trainer.sanity_checking:
            self._leave(trainer)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # only for a validation within an epoch; the one after an epoch is followed by the end of the epoch
        within_epoch = not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch
        if within_epoch and not trainer.sanity_checking and self._wanted(pl_module) == _STOP:
            self._leave(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._save(trainer)
        if self._wanted(pl_module) == _STOP:
            self._leave(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self._validation_comes:
            # On resuming, Lightning skips a validation that had not started. If one had started, it continues
            # after the number of finished batches, which is 0 here.
            progress = checkpoint["loops"]["fit_loop"]["epoch_loop.val_loop.batch_progress"]
            for counts in (progress["total"], progress["current"]):
                counts.update(ready=1, started=1, processed=0, completed=0)

    def _listen(self) -> None:
        """Replaces Lightning's signal handlers, which act in the middle of a step, with ours."""
        if threading.current_thread() is threading.main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._note)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # nohup has it ignored
                signal.signal(signal.SIGINT, self._note)

    def teardown(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        if signal.getsignal(signal.SIGINT) == self._note:  # Lightning restores the others
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            print("\nFinishing this step and writing a checkpoint; Ctrl-C again ends at once.", flush=True)

    def _wanted(self, pl_module: lightning.LightningModule, wanted: int = _GO_ON) -> int:
        """What all processes agree to do: stop if any has received a signal, save if it is time for any."""
        return group.largest(wanted if self._told is None else _STOP, pl_module.device)

    def _save(self, trainer: lightning.Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._written = time.monotonic()

    def _leave(self, trainer: lightning.Trainer) -> None:
        told = signal.Signals(self._told).name if self._told is not None else "a signal to another process"
        if not trainer.is_global_zero:
            raise SystemExit(0)  # Lightning treats any other code as a crash and kills the first process
        steps = int(trainer.estimated_stepping_batches)
        logger.warning(
            "stopped by %s after step %d of %d (epoch %d of %s), which %s holds; continue with the same command "
            "and resume=true",
            *(told, trainer.global_step, steps, trainer.current_epoch + 1, trainer.max_epochs, self.path),
        )
        raise SystemExit(INTERRUPTED if self._told == signal.SIGINT else STOPPED)
