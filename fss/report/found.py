"""Finds the training runs below a folder and their evaluations."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fss.evaluation.results import CHECKPOINTS, RESULTS, SETTINGS, TRAINING, read_metrics

# Settings that identify a run, or affect only where it reads and writes, its speed and its evaluation. Any other
# setting on the command line may change the recipe.
_NOT_OWN = re.compile(
    r"(fold|shot|seed|dataset|method|backbone|tuning|logger|trainer|protocol|episodes|seeds|outputs|pictures|run_dir)="
    r"|(cache_gb|precision|tf32|compile|resume|keep_best|save_minutes|tags)="
    r"|dataset\.(root|exclude_novel|num_workers|eval_batch_size|val_episodes)="
    r"|trainer\.(accelerator|devices|num_nodes|strategy|log_every_n_steps|enable_progress_bar)="
    r"|(hydra|logger|panels|reuse)\.|method\.base_(seed|checkpoint)="
)


class Run(NamedTuple):
    """A training run's folder.

    Attributes:
        folder: `OUTPUTS/DATASET/METHOD-TUNING-BACKBONE/Kshot/foldF/seedS`.
        config: All settings.
        overrides: Settings given on the command line.
    """

    folder: Path
    config: dict[str, Any]
    overrides: list[str]

    @property
    def outputs(self) -> Path:
        """The folder that contains the data set's folder."""
        return Path(*self.folder.resolve().parts[:-5])

    @property
    def has_trained(self) -> bool:
        """Whether training has ended; False for a run that has been started again."""
        is_anew = (self.folder / f"{CHECKPOINTS}.before").exists()
        return (self.folder / TRAINING).is_file() and not is_anew

    @property
    def own_settings(self) -> tuple[str, ...]:
        """Settings on the command line that do more than identify the run and may change the recipe."""
        return tuple(sorted(o for o in self.overrides if not _NOT_OWN.match(o.lstrip("+~"))))


class Evaluation(NamedTuple):
    """One metrics.json.

    Attributes:
        path: Path of the file.
        metrics: Content of the file.
        run: The training run it belongs to; None for a checkpoint file or an untrained method.
    """

    path: Path
    metrics: dict[str, Any]
    run: Run | None

    @property
    def weights(self) -> str:
        """The evaluated weights: "last" or "best" of a run, or "file"."""
        checkpoint = self.metrics["checkpoint"]
        return checkpoint if checkpoint in ("last", "best") else "file"


class Found:
    """Everything below a folder.

    Args:
        folder: The folder to search, such as `outputs`.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If a metrics file is not of this version.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"no folder {folder}: train first (python train.py), or give another folder")
        self.folder = folder
        self._metrics = read_metrics(folder)

    @cached_property
    def runs(self) -> dict[Path, Run]:
        """Training runs by folder: all folders with checkpoints and the configuration of their run."""
        runs = {}
        for checkpoints in sorted(self.folder.rglob(CHECKPOINTS)):
            folder = checkpoints.parent
            config, overrides = folder / SETTINGS, folder / ".hydra/overrides.yaml"
            if config.is_file() and any(checkpoints.glob("*.ckpt")):
                typed = yaml.safe_load(overrides.read_text()) if overrides.is_file() else []
                runs[folder] = Run(folder, yaml.safe_load(config.read_text()), typed)
        return runs

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """All evaluations, sorted by path."""
        return [Evaluation(path, metrics, self._run_of(path)) for path, metrics in self._metrics.items()]

    def _run_of(self, path: Path) -> Run | None:
        results = path.parent.parent
        return self.runs.get(results.parent) if results.name == RESULTS else None
