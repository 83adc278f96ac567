"""Finds the training runs below a folder and their evaluations."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from fss.evaluation.results import CHECKPOINTS, RECORD, RESULTS, SETTINGS, TRAINING, read_metrics
from fss.files.plain import read_yaml

# Settings that identify a run, or affect only where it reads and writes, its speed and its evaluation. Any other
# setting on the command line may change the recipe. `tags` is a setting of older runs.
_NOT_OWN = re.compile(
    r"(fold|shot|seed|dataset|method|backbone|tuning|recipe|logger|trainer|protocol|episodes|seeds|outputs)="
    r"|(pictures|run_dir|cache_gb|precision|tf32|compile|checkpointing|resume|keep_best|save_minutes|tags)="
    r"|dataset\.(root|exclude_novel|num_workers|eval_batch_size|val_episodes)="
    r"|trainer\.(accelerator|devices|num_nodes|strategy|log_every_n_steps|enable_progress_bar)="
    r"|(hydra|logger|panels|reuse)\.|method\.base_(seed|checkpoint)=|optimizer\.fused="
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
    def recipe(self) -> str | None:
        """Name of the recipe that training followed; None in runs from before recipes."""
        return self.config.get("recipe", {}).get("name")

    @property
    def typed_settings(self) -> tuple[str, ...]:
        """Settings on the command line that do more than identify the run."""
        return tuple(sorted(o for o in self.overrides if not _NOT_OWN.match(o.lstrip("+~"))))

    @property
    def own_settings(self) -> tuple[str, ...]:
        """Settings that differ from the recipe, and random weights; in runs from before recipes, those typed."""
        differing = self.config.get("differs_from_recipe")
        if differing is None:
            # a named file may hold the published weights
            own = [o for o in self.typed_settings if not o.startswith("backbone.weights=")]
        else:
            own = _typed(differing)
        starts_here = self.config.get("start", "imagenet") == "imagenet"
        if starts_here and self.config["backbone"].get("weights", "") is None:
            own.append("backbone.weights=null")
        return tuple(sorted(own))


def _typed(differing: Mapping[str, Sequence[Any]]) -> list[str]:
    """Settings that differ from a recipe, as they are typed for Hydra."""
    return [
        f"{name}={ours if isinstance(ours, str) else json.dumps(ours)}" for name, (ours, _) in differing.items()
    ]


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

    @property
    def recipe(self) -> str | None:
        """Name of the recipe that the weights were trained by; None if it is not known."""
        return self.metrics.get("recipe") or (self.run.recipe if self.run else None)

    @property
    def own_settings(self) -> tuple[str, ...]:
        """What the run does differently from its recipe; results without their run say it themselves."""
        if self.run is not None:
            return self.run.own_settings
        return tuple(sorted(_typed(self.metrics.get("differs_from_recipe") or {})))


def _named_checkpoint(run: Run) -> bool:
    return any(o.lstrip("+").startswith("method.base_checkpoint=") for o in run.overrides)


def read_run(folder: Path) -> Run:
    """A training run, from what its folder says.

    Raises:
        ValueError: Its config.yaml or its overrides.yaml is not what a run writes.
    """
    config, overrides = folder / SETTINGS, folder / RECORD
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
        recipe = config.get("recipe", {})
        if not isinstance(recipe, dict) or not isinstance(recipe.get("name"), str | None):
            odd.append("recipe.name")
        if not _are_differences(config.get("differs_from_recipe")):
            odd.append("differs_from_recipe")
    if odd:
        raise ValueError(f"{file} holds no settings of a run of this program ({', '.join(odd)}): delete it")


def _are_differences(value: Any) -> bool:
    """Whether this can be what differs from a recipe: by setting, its own value and the recipe's; or nothing."""
    return value is None or (
        isinstance(value, dict)
        and all(isinstance(name, str) for name in value)
        and all(isinstance(pair, list) and len(pair) == 2 for pair in value.values())
    )


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
            recipe, differing = metrics.get("recipe"), metrics.get("differs_from_recipe")
            if not isinstance(recipe, str | None) or not _are_differences(differing):
                raise ValueError(f"{path} says no recipe in a form that this program writes: delete it")

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

    def base_learner(self, run: Run) -> Run | None:
        """The run that trained the base learner which another run starts from, if it is among the runs.

        A run finds its base learner by name in its own folder of outputs, unless a checkpoint was named for it.
        """
        if run.config.get("start") != "base_learner" or _named_checkpoint(run):
            return None
        config = run.config
        seed = config["method"].get("base_seed", config["seed"])
        name = f"{config['dataset']['name']}/base-{config['backbone']['name']}"
        return self._of_place.get(run.outputs / name / f"fold{config['fold']}" / f"seed{seed}")

    @cached_property
    def _of_place(self) -> dict[Path, Run]:
        return {folder.resolve(): run for folder, run in self.runs.items()}

    def _run_of(self, path: Path) -> Run | None:
        results = path.parent.parent
        return self.runs.get(results.parent) if results.name == RESULTS else None
