"""What every script does first."""

from __future__ import annotations

import logging
import warnings
from os.path import relpath
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from fss.display.shown import show_record


def prepare(cfg: DictConfig, needs_weights: bool) -> None:
    """Checks that every setting that is needed has a value and the data a place, and seeds all randomness.

    Args:
        cfg: Composed configuration.
        needs_weights: Whether `backbone.weights` is needed; not where a checkpoint brings them.

    Raises:
        FileNotFoundError: There is no data where `dataset.root` says.
        ValueError: Settings without a default were not given; they are named.
    """
    if OmegaConf.is_missing(cfg.backbone, "weights") and not needs_weights:
        cfg.backbone.weights = None
    if missing := _missing(OmegaConf.to_container(cfg)):
        raise ValueError(f"settings without a default: {', '.join(missing)}; give them as {missing[0]}=VALUE")
    root = cfg.dataset.root
    if root is not None and not Path(root).expanduser().is_dir():
        expects = cfg.dataset.expects.replace("ROOT", root)
        raise FileNotFoundError(f"no folder {root} (dataset.root): {expects}")
    _quiet_lightning()
    for handler in logging.getLogger().handlers:
        handler.addFilter(show_record)
    torch.backends.cudnn.allow_tf32 = cfg.tf32
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)


def typed() -> list[str]:
    """The overrides of this program's command line, Hydra's own left out."""
    return list(HydraConfig.get().overrides.task)


def config_dir() -> list[str]:
    """`--config-dir DIR` where this program was started with it: what it starts or names needs it, too."""
    sources = HydraConfig.get().runtime.config_sources if HydraConfig.initialized() else ()
    return [word for s in sources if s.provider == "command-line" for word in ("--config-dir", relpath(s.path))]


def is_first() -> bool:
    """Whether this is the first of a run's processes, which alone prints and writes."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _missing(settings: Any, path: str = "") -> list[str]:
    # OmegaConf.missing_keys stops at an interpolation of a missing value
    if isinstance(settings, dict):
        return [key for name, value in settings.items() for key in _missing(value, f"{path}.{name}".lstrip("."))]
    return [path] if settings == "???" else []


def _quiet_lightning() -> None:
    """Leaves out what Lightning says at every start and nobody can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    if not is_first():
        logging.getLogger("fss").setLevel(logging.ERROR)  # the others would say the same
    # the backbone is meant to be in eval mode while it trains
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated")
    # the folder is a run's own; the sampler knows where a resumed run stands; scores are equal on all processes
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
    warnings.filterwarnings("ignore", "You're resuming from a checkpoint that ended before the epoch ended")
    warnings.filterwarnings("ignore", "It is recommended to use `self.log.*sync_dist=True")
    # a try with few episodes needs no curve
    warnings.filterwarnings("ignore", "The number of training batches .* is smaller than the logging interval")
    # its successor is too new
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
    # pictures of shapes are painted once and then only copied: workers would bring nothing
    warnings.filterwarnings("ignore", "The '.*dataloader' does not have many workers")
