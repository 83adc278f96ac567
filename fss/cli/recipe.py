"""What a run does differently from the published recipe that it names."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from hydra import compose
from omegaconf import DictConfig, OmegaConf

from fss.cli import overrides

# These say which run it is; everything else of a command line may change the recipe.
CHOICES = ("dataset", "method", "backbone", "tuning", "recipe", "protocol")
VALUES = ("fold", "shot", "seed", "train_shot", "trained_on", "backbone.name")
# What a recipe decides.
DECIDED = ("recipe", "dataset", "method", "backbone", "tuning", "optimizer", "batch_size", "start", "patience")
TRAINER = ("max_epochs", "max_steps", "gradient_clip_val", "val_check_interval", "check_val_every_n_epoch")
# Where things are and how fast they go, the weights to start from, and copies of other settings.
FREE = {
    *("dataset.root", "dataset.num_workers", "dataset.eval_batch_size", "dataset.cache_gb"),
    *("dataset.base.eval_batch_size", "dataset.eval_list", "dataset.support_annotation", "dataset.eval_classes"),
    *("dataset.train_reader.root", "dataset.eval_reader.root", "dataset.eval_root"),
    *("backbone.weights", "backbone.network.weights"),
    *("method.base_seed", "method.base_checkpoint", "method.train_base", "method.run_name"),
    "optimizer.fused",
}


def differences(cfg: DictConfig, typed: Sequence[str]) -> dict[str, list[Any]]:
    """The settings that differ from the recipe, each with its own value and the recipe's.

    Args:
        cfg: Configuration of a run.
        typed: The overrides it was composed from. Groups among them (`backbone=resnet50`) choose what the recipe
            is asked about; an experiment and single settings may differ from it.
    """
    chosen = [o for o in typed if overrides.setting(o) in (*CHOICES, *VALUES)]
    by_experiment = set(CHOICES) - {overrides.setting(o) for o in chosen} - {"protocol"}
    chosen += [f"{group}={cfg[group].name}" for group in sorted(by_experiment)]
    pure = _pure(tuple(overrides.merged(chosen)))
    ours, theirs = _flat(cfg), _flat(pure)
    differing = {}
    for name in sorted((ours.keys() | theirs.keys()) - FREE):
        mine, its = ours.get(name), theirs.get(name)
        if mine != its:  # as written: of an interpolation that both have, the source is listed
            differing[name] = [OmegaConf.select(cfg, name), OmegaConf.select(pure, name)]
    return {name: [_plain(value) for value in pair] for name, pair in differing.items()}


@lru_cache(maxsize=1)  # a run asks for it again and again, and composing takes a fifth of a second
def _pure(chosen: tuple[str, ...]) -> DictConfig:
    return compose("train", list(chosen))


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _flat(cfg: DictConfig) -> dict[str, Any]:
    """What a recipe decides as it is written, interpolations included, by the full name of the setting."""
    written: Any = OmegaConf.to_container(cfg, resolve=False)
    found: dict[str, Any] = {f"trainer.{name}": written["trainer"].get(name) for name in TRAINER}
    for name in DECIDED:
        _collect(written[name], name, found)
    return found


def _collect(settings: Any, path: str, found: dict[str, Any]) -> None:
    if isinstance(settings, dict) and settings:
        for name, value in settings.items():
            _collect(value, f"{path}.{name}", found)
    else:
        found[path] = settings
