"""What a training prints before its first step and after its last."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig
from rich.table import Table

from fss.cli import overrides, start
from fss.cli.model_files import FILES
from fss.display.console import PlainConsole
from fss.evaluation.results import CHECKPOINTS, SETTINGS
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.parameters import count_parameters
from fss.models.segmenter import FewShotSegmenter
from fss.training.callbacks.checkpoints import LAST


def print_settings(cfg: DictConfig, differing: Mapping[str, Sequence[Any]]) -> None:
    """The settings that people change most, what differs from the recipe, and where all settings are.

    Args:
        cfg: The run's configuration.
        differing: See `fss.cli.recipe.differences`.
    """
    table = Table(box=None, show_header=False, title="Run", title_justify="left")
    for name in ("dataset", "method", "backbone", "tuning"):
        table.add_row(name, str(cfg[name].name))
    for name in ("fold", "shot", "seed", "batch_size", "precision"):
        table.add_row(name, str(cfg[name]))
    table.add_row("epochs", str(cfg.trainer.max_epochs))
    table.add_row("recipe", cfg.recipe.name)
    console = PlainConsole()
    console.print(table)
    if differing:
        changes = ", ".join(f"{name}={ours} ({theirs})" for name, (ours, theirs) in differing.items())
        console.print(f"Differs from the recipe in: {changes}", soft_wrap=True, markup=False, highlight=False)
    console.print(f"All settings: {Path(cfg.run_dir) / SETTINGS}", soft_wrap=True)


def print_parameters(segmenter: FewShotSegmenter | BaseLearnerSegmenter) -> None:
    """How many parameters each part has, and how many of them are trained."""
    table = Table("part", title="Parameters", title_justify="left")
    table.add_column("trained", justify="right")
    table.add_column("all", justify="right")
    parts = count_parameters(segmenter)
    for part in parts:
        table.add_row(part.part, f"{part.trained:,}", f"{part.all:,}")
    table.add_row("together", f"{sum(p.trained for p in parts):,}", f"{sum(p.all for p in parts):,}", style="bold")
    PlainConsole().print(table)


def print_end(cfg: DictConfig, trainer: Trainer, typed: list[str]) -> None:
    """Where the weights are, and what to do with them.

    Args:
        cfg: The run's configuration.
        trainer: After training.
        typed: The overrides of the command line.
    """
    checkpoints = trainer.checkpoint_callback
    assert isinstance(checkpoints, ModelCheckpoint)
    if cfg.method.stage == "base_learner":
        best = os.path.relpath(checkpoints.best_model_path)
        score = float(checkpoints.best_model_score or 0)
        again = overrides.without(typed, "method", "batch_size", "run_dir", "run_group", "run_path", "resume")
        rows = {
            "Base learner": f"{best}, mIoU of the base classes: {score:.3f}",
            "BAM with it": shlex.join(["python", "train.py", *start.config_dir(), "method=bam", *again]),
        }
    else:
        model = Path(cfg.run_dir) / CHECKPOINTS / FILES["last"]
        rows = {
            "Checkpoint": os.path.relpath(Path(cfg.run_dir) / CHECKPOINTS / LAST),
            **({"Model file": os.path.relpath(model)} if model.is_file() else {}),
            "Evaluate again": shlex.join(
                ["python", "evaluate.py", *start.config_dir(), overrides.typed("run_dir", cfg.run_dir)]
            ),
            "Compare runs": shlex.join(["python", "-m", "fss.report", cfg.outputs]),
        }
    for label, text in rows.items():
        print(f"{label + ':':<16}{text}")
