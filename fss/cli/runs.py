"""From a composed configuration to objects: what the scripts share."""

from __future__ import annotations

import logging
import os
import shlex
import subprocess
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
import wandb
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, Timer
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from fss.data.datamodule import FewShotDataModule
from fss.evaluation.results import CHECKPOINTS, SETTINGS, TRAINING, write_json
from fss.models.backbones import Backbone
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.parameters import count_parameters
from fss.models.segmenter import FewShotSegmenter
from fss.training.callbacks import ClassScores, EpisodePanels, SingularValues, Speed, progress_display
from fss.training.callbacks.checkpoints import LAST, BestCheckpoint, LastCheckpoint, WholeCheckpoints
from fss.training.callbacks.finite_loss import FiniteLoss
from fss.training.callbacks.step_seeds import StepSeeds
from fss.training.meta_learner import MetaLearner
from fss.training.run_folder import check_processes, forget_earlier, note_settings, prepare_folder


def start(cfg: DictConfig) -> None:
    """Checks that every setting that is needed has a value, and seeds all randomness.

    Raises:
        ValueError: Settings without a default were not given; they are named.
    """
    evaluates_trained = "ckpt" in cfg and cfg.method.trained
    if OmegaConf.is_missing(cfg.backbone, "weights") and (evaluates_trained or "base_checkpoint" in cfg.method):
        cfg.backbone.weights = None  # a checkpoint will bring them
    if missing := _missing(OmegaConf.to_container(cfg)):
        raise ValueError(f"settings without a default: {', '.join(missing)}; give them as {missing[0]}=VALUE")
    _quiet_lightning()
    torch.backends.cudnn.allow_tf32 = cfg.tf32
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)


def begin(cfg: DictConfig) -> Path | None:
    """Makes sure that a training can be run and kept, before any data is read; prepares its folder.

    Returns:
        The checkpoint to go on from; None to begin.

    Raises:
        ValueError: The processes cannot share a batch, or each would train on its own; or the run could not be
            resumed.
        OSError: The run folder cannot be written.
    """
    if cfg.resume and cfg.trainer.max_steps != -1:  # Lightning then counts the epoch that a run was in twice
        raise ValueError(
            f"trainer.max_steps={cfg.trainer.max_steps}: resume=true needs a run that ends with an epoch"
        )
    check_processes(build_trainer(cfg, (), with_logger=False), cfg.batch_size)
    folder, first = Path(cfg.run_dir), is_first()
    checkpoint = prepare_folder(folder / CHECKPOINTS, cfg.resume, first)
    if first:
        note_settings(folder / SETTINGS, settings_of(cfg), cfg.resume)
        _print_settings(cfg)
    return checkpoint


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """Every setting of a run as plain values."""
    # a base learner has settings of its own in place of these
    unused = ("learner", "datamodule", "tuning") if cfg.method.name == "base" else ()
    return {
        str(key): OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in cfg.items()
        if key not in unused
    }


def is_first() -> bool:
    """Whether this is the first of a run's processes, which alone prints and writes."""
    return getattr(rank_zero_only, "rank", 0) == 0


def _print_settings(cfg: DictConfig) -> None:
    table = Table(box=None, show_header=False, title="Run", title_justify="left")
    for name in ("dataset", "method", "backbone", "tuning"):
        table.add_row(name, str(cfg[name].name))
    for name in ("fold", "shot", "seed", "batch_size", "precision"):
        table.add_row(name, str(cfg[name]))
    table.add_row("epochs", str(cfg.trainer.max_epochs))
    console = Console()
    console.print(table)
    console.print(f"All settings: {Path(cfg.run_dir) / SETTINGS}", soft_wrap=True)


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
    # its successor is too new
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated")
    # shapes' pictures are painted once and then only copied: workers would bring nothing
    warnings.filterwarnings("ignore", "The '.*dataloader' does not have many workers")


def build_segmenter(cfg: DictConfig, base_classes: int, pretrained: bool = True) -> FewShotSegmenter:
    """Backbone and head of a configuration, nothing tuned.

    Args:
        cfg: Composed configuration.
        base_classes: How many there are, for a head with a base learner.
        pretrained: Whether to load `backbone.weights`; not needed before a whole checkpoint is loaded.
    """
    backbone = _build_backbone(cfg, pretrained)
    known = {"base_classes": base_classes} if cfg.method.base_learner else {}
    head = instantiate(cfg.method.head, channels=list(backbone.channels), **known, _convert_="all")
    return FewShotSegmenter(backbone, head, cfg.backbone.norms)


def build_base_segmenter(cfg: DictConfig, base_classes: int) -> BaseLearnerSegmenter:
    """Backbone and head of the base learner."""
    backbone = _build_backbone(cfg, pretrained=True)
    return BaseLearnerSegmenter(
        backbone,
        instantiate(cfg.method.head, channels=backbone.channels.high, base_classes=base_classes, _convert_="all"),
    )


def _build_backbone(cfg: DictConfig, pretrained: bool) -> Backbone:
    return instantiate(cfg.backbone.network, **({} if pretrained else {"weights": None}))


def compile_network(cfg: DictConfig, segmenter: FewShotSegmenter | BaseLearnerSegmenter) -> None:
    """Has a network compiled at its first training step if `compile` says so; evaluation takes a plain copy."""
    if cfg.compile:
        torch.compiler.reset()  # what an earlier job of a sweep left would make the sizes of this one symbols
        segmenter.compile(dynamic=False)


def build_learner(cfg: DictConfig, segmenter: FewShotSegmenter) -> MetaLearner:
    """The LightningModule around a segmenter, with the optimisation that the tuning declares."""
    return instantiate(cfg.learner, segmenter=segmenter, _convert_="all")


def base_checkpoint(cfg: DictConfig) -> Path | None:
    """The base learner that a method stands on; None where it needs none.

    Raises:
        FileNotFoundError: There is none; the message says the command that makes it.
    """
    if not cfg.method.base_learner:
        return None
    path = Path(cfg.method.base_checkpoint)
    if not path.is_file():
        others = ("method", "tuning", "shot", "optimizer", "learner", "pictures", "batch_size", "run", "seed")
        typed = [o for o in HydraConfig.get().overrides.task if not o.lstrip("+~").startswith(others)]
        command = " ".join(["python train.py method=base", *typed, f"seed={cfg.method.base_seed}"])
        raise FileNotFoundError(
            f"no base learner {path}: train it first ({command}) or name a file with method.base_checkpoint=FILE"
        )
    return path


def build_datamodule(cfg: DictConfig, seen_classes: Sequence[str] | None = None) -> FewShotDataModule:
    """The episodes of a configuration; nothing is read yet.

    Args:
        cfg: Composed configuration.
        seen_classes: See `FewShotDataModule`.
    """
    return instantiate(cfg.datamodule, seen_classes=seen_classes, _convert_="all")


def build_trainer(
    cfg: DictConfig, callbacks: Sequence[lightning.Callback], with_logger: bool = True
) -> lightning.Trainer:
    """The Trainer of a configuration."""
    plugins: list[Any] = [WholeCheckpoints()]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # LastCheckpoint hears the signals
    loggers = build_loggers(cfg) if with_logger else []
    callbacks = [progress_display(), *callbacks]
    return instantiate(cfg.trainer, logger=loggers, callbacks=callbacks, plugins=plugins, _convert_="all")


def own_device(cfg: DictConfig) -> torch.device:
    """The device of this process."""
    return build_trainer(cfg, (), with_logger=False).strategy.root_device


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers of a configuration.

    Raises:
        ValueError: W&B is to log live, but knows no account; it would ask for one in the middle of things.
    """
    loggers: list[Logger] = [instantiate(logger, _convert_="all") for logger in cfg.logger.values()]
    live = any(isinstance(logger, WandbLogger) for logger in loggers) and not cfg.logger.wandb.offline
    if live and os.environ.get("WANDB_MODE", "online") == "online" and not wandb.login(prompt=False):
        raise ValueError(
            "logger.wandb.offline=false needs a W&B account: call `wandb login` once or set WANDB_API_KEY"
        )
    return loggers


def monitors(cfg: DictConfig) -> list[lightning.Callback]:
    """What watches a training: for the terminal, and for loggers if there are any."""
    callbacks: list[lightning.Callback] = [Speed(), ClassScores()]
    if cfg.logger:
        callbacks += [LearningRateMonitor("step"), SingularValues()]
        if cfg.method.name != "base":  # which knows no episodes
            callbacks.append(EpisodePanels(**cfg.panels))
    return callbacks


def log_configuration(cfg: DictConfig, trainer: lightning.Trainer) -> None:
    """Gives loggers the whole configuration and the revision of the program."""
    for logger in trainer.loggers:
        logger.log_hyperparams({**settings_of(cfg), "git_revision": git_revision()})


def safeguards(cfg: DictConfig) -> list[lightning.Callback]:
    """What a training is kept by: checkpoints of the best validation mIoU and of the last step, and guards."""
    folder = Path(cfg.run_dir) / CHECKPOINTS
    few = [BestCheckpoint(folder, "epoch{epoch:03d}-step{step}", cfg.keep_best)] if cfg.keep_best > 1 else []
    return [
        FiniteLoss(cfg.trainer.log_every_n_steps),
        StepSeeds(cfg.seed),
        BestCheckpoint(folder),
        *few,
        LastCheckpoint(folder, cfg.save_minutes),  # after the others, whose scores it holds
    ]


def print_parameters(segmenter: FewShotSegmenter | BaseLearnerSegmenter) -> None:
    """Prints how many parameters of each part are trained."""
    if not is_first():
        return
    table = Table("part", title="Parameters", title_justify="left")
    table.add_column("trained", justify="right")
    table.add_column("all", justify="right")
    parts = count_parameters(segmenter)
    for part in parts:
        table.add_row(part.part, f"{part.trained:,}", f"{part.all:,}")
    table.add_row("together", f"{sum(p.trained for p in parts):,}", f"{sum(p.all for p in parts):,}", style="bold")
    Console().print(table)


def print_end(cfg: DictConfig, trainer: lightning.Trainer) -> None:
    """Says where the weights are and what to do with them."""
    checkpoints = trainer.checkpoint_callback
    assert isinstance(checkpoints, ModelCheckpoint)
    if not trainer.is_global_zero:
        return
    if cfg.method.name == "base":
        typed = HydraConfig.get().overrides.task
        best = os.path.relpath(checkpoints.best_model_path)
        score = float(checkpoints.best_model_score or 0)
        again = [o for o in typed if not o.startswith(("method", "batch_size", "run"))]
        rows = {
            "Base learner": f"{best}, mIoU of the base classes: {score:.3f}",
            "BAM with it": shlex.join(["python", "train.py", "method=bam", *again]),
        }
    else:
        rows = {
            "Checkpoint": os.path.relpath(Path(cfg.run_dir) / CHECKPOINTS / LAST),
            "Evaluate again": shlex.join(["python", "evaluate.py", f"run_dir={cfg.run_dir}"]),
            "Compare runs": shlex.join(["python", "-m", "fss.report", cfg.outputs]),
        }
    for label, text in rows.items():
        print(f"{label + ':':<16}{text}")


def write_training(folder: Path, segmenter: FewShotSegmenter | BaseLearnerSegmenter, timer: Timer) -> None:
    """Notes beside a run's checkpoints how long it trained (seconds) and how many parameters."""
    if not is_first():
        return
    forget_earlier(folder / CHECKPOINTS)
    trained = sum(part.trained for part in count_parameters(segmenter))
    write_json(folder / TRAINING, {"seconds": round(timer.time_elapsed("train"), 1), "parameters": trained})


def git_revision() -> str | None:
    """The revision of the program; None where it is no checkout."""
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # no git: the result stands without it
        return None
