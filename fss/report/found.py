"""Finds the training runs below a folder and their evaluations."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from fss.evaluation.results import CHECKPOINTS, RESULTS, SETTINGS, TRAINING, read_metrics
from fss.plain_files import read_yaml

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


def read_run(folder: Path) -> Run:
    """A training run, from what its folder says.

    Raises:
        ValueError: Its config.yaml or its overrides.yaml is not what a run writes.
    """
    config, overrides = folder / SETTINGS, folder / ".hydra/overrides.yaml"
    settings = read_yaml(config)
    _check_config(settings, config)
    typed = read_yaml(overrides) if overrides.is_file() else []
    if not isinstance(typed, list) or not all(isinstance(override, str) for override in typed):
        raise ValueError(f"{overrides} is no list of overrides: delete it")
    return Run(folder, settings, typed)


def _check_config(config: Any, file: Path) -> None:
    """Raises a ValueError where settings lack what tells runs apart, or hold it in another form."""
    odd = [] if isinstance(config, dict) else ["settings"]
    if not odd:
        for name in ("fold", "shot", "seed"):
            if not isinstance(config.get(name), int) or isinstance(config[name], bool) or config[name] < 0:
                odd.append(name)
        is_base = isinstance(config.get("method"), dict) and config["method"].get("name") == "base"
        for group in (
            "dataset",
            "backbone",
            "method",
            *(() if is_base and "tuning" not in config else ("tuning",)),
        ):
            if not isinstance(config.get(group), dict) or not isinstance(config[group].get("name"), str):
                odd.append(f"{group}.name")
        excluded = config["dataset"].get("exclude_novel") if "dataset.name" not in odd else None
        if not isinstance(excluded, bool | None):
            odd.append("dataset.exclude_novel")
    if odd:
        raise ValueError(f"{file} holds no settings of a run of this program ({', '.join(odd)}): delete it")


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
        for path, metrics in self._metrics.items():
            _check_config(metrics["config"], path)

    @cached_property
    def runs(self) -> dict[Path, Run]:
        """Training runs by folder: all folders with checkpoints and the configuration of their run."""
        runs = {}
        for checkpoints in sorted(self.folder.rglob(CHECKPOINTS)):
            folder = checkpoints.parent
            if (folder / SETTINGS).is_file() and any(checkpoints.glob("*.ckpt")):
                runs[folder] = read_run(folder)
        return runs

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """All evaluations, sorted by path."""
        return [Evaluation(path, metrics, self._run_of(path)) for path, metrics in self._metrics.items()]

    def _run_of(self, path: Path) -> Run | None:
        results = path.parent.parent
        return self.runs.get(results.parent) if results.name == RESULTS else None
