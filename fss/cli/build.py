"""From a composed configuration to the objects that it describes."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import lightning
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.loggers import Logger, WandbLogger
from lightning.pytorch.plugins.environments import SLURMEnvironment
from omegaconf import DictConfig
from torch import nn

from fss.cli.declared import source
from fss.data.base_datamodule import BaseLearnerDataModule
from fss.data.datamodule import FewShotDataModule
from fss.evaluation.results import CHECKPOINTS
from fss.models import footprint
from fss.models.backbones import Backbone
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.heads.head import Head
from fss.models.heads.pspnet import PSPHead
from fss.models.segmenter import FewShotSegmenter
from fss.training.base_learner import BaseLearner
from fss.training.callbacks import ClassScores, EpisodePanels, SingularValues, Speed, progress_display
from fss.training.callbacks.checkpoints import BestCheckpoint, LastCheckpoint, WholeCheckpoints
from fss.training.callbacks.early_stopping import EarlyStopping
from fss.training.callbacks.finite_loss import FiniteLoss
from fss.training.callbacks.step_seeds import StepSeeds
from fss.training.meta_learner import MetaLearner

Made = TypeVar("Made")


def build_segmenter(
    cfg: DictConfig, base_classes: int, pretrained: bool = True, weights: Path | None = None
) -> FewShotSegmenter:
    """Backbone and head of a configuration, nothing tuned.

    Args:
        cfg: Composed configuration.
        base_classes: Number of base classes, for a head with a base learner.
        pretrained: Whether to load `backbone.weights`; not needed before a whole checkpoint is loaded.
        weights: A file to load in their place, such as a base learner's checkpoint.
    """
    backbone = build_backbone(cfg, pretrained, weights)
    known = {"base_classes": base_classes} if cfg.method.base_learner else {}
    head = _build_head(cfg, Head, channels=list(backbone.channels), **known)
    return FewShotSegmenter(backbone, head, cfg.backbone.norms)


def build_base_segmenter(cfg: DictConfig, base_classes: int) -> BaseLearnerSegmenter:
    """Backbone and head of the base learner."""
    backbone = build_backbone(cfg, pretrained=True)
    head = _build_head(cfg, PSPHead, channels=backbone.channels.high, base_classes=base_classes)
    return BaseLearnerSegmenter(backbone, head)


def _build_head(cfg: DictConfig, kind: type[nn.Module], **known: Any) -> Any:
    """The head of a configuration.

    Raises:
        ValueError: Its weights cannot fit the memory, or it is none.
    """

    def build() -> nn.Module:
        return _checked(instantiate(cfg.method.head, **known, _convert_="all"), kind, "method.head")

    there = footprint.memory_bytes(torch.device("cpu"))
    if footprint.weights_bytes(build) > there:
        sizes = {source(cfg, f"method.head.{n}"): size for n, size in cfg.method.head.items() if type(size) is int}
        largest = max(sizes, key=lambda name: sizes[name])
        raise ValueError(
            f"{largest}={sizes[largest]}: the head's weights do not fit into the {there / 1e9:.0f} GB of memory "
            "of this machine, lower it"
        )
    return build()


def _checked(made: object, kind: type[Made], setting: str) -> Made:
    """What has been made of a setting, if it is of the kind that is needed; otherwise ValueError."""
    if isinstance(made, kind):
        return made
    raise ValueError(
        f"{setting} makes a {type(made).__name__}: name a class or function as its _target_ that makes a "
        f"{kind.__module__}.{kind.__qualname__}"
    )


def _copied(cfg: DictConfig) -> DictConfig:
    """A configuration that may be changed: instantiating resolves what is referred to where it stands."""
    return copy.deepcopy(cfg)


def build_backbone(cfg: DictConfig, pretrained: bool, weights: Path | None = None) -> Backbone:
    """The backbone of a configuration; see `build_segmenter`."""
    given = {"weights": str(weights)} if weights is not None else {} if pretrained else {"weights": None}
    return _checked(instantiate(cfg.backbone.network, **given), Backbone, "backbone.network")


def check_memory(cfg: DictConfig, segmenter: FewShotSegmenter, training: bool) -> None:
    """Raises ValueError if a step of training, or an episode of an evaluation, cannot fit the memory."""
    trainer = build_trainer(cfg, (), with_logger=False)
    batch = max(1, cfg.batch_size // trainer.world_size) if training else 1
    halved = 1 if cfg.precision == "32-true" else 2
    device = trainer.strategy.root_device
    footprint.check_memory(segmenter, batch, cfg.shot, cfg.dataset.size, training, device, bytes_by=halved)


def compile_network(cfg: DictConfig, segmenter: FewShotSegmenter | BaseLearnerSegmenter) -> None:
    """Has a network compiled at its first training step if `compile` says so; evaluation takes a plain copy."""
    if cfg.compile:
        torch.compiler.reset()  # what an earlier job of a sweep left would make this one's sizes dynamic
        # torch's name for recording CUDA graphs; without a GPU it compiles as usual
        mode = "reduce-overhead" if cfg.compile == "cuda_graphs" else None
        segmenter.compile(dynamic=False, mode=mode)


def build_learner(cfg: DictConfig, segmenter: FewShotSegmenter) -> MetaLearner:
    """The LightningModule around a segmenter, with the optimisation that the tuning declares."""
    made = instantiate(_copied(cfg).learner, segmenter=segmenter, _convert_="all")
    return _checked(made, MetaLearner, "learner")


def build_base_learner(cfg: DictConfig, segmenter: BaseLearnerSegmenter, base_classes: int) -> BaseLearner:
    """The LightningModule around the base learner's network."""
    known = {"segmenter": segmenter, "base_classes": base_classes}
    return _checked(
        instantiate(_copied(cfg).method.learner, **known, _convert_="all"), BaseLearner, "method.learner"
    )


def build_datamodule(cfg: DictConfig, seen_classes: Sequence[str] | None = None) -> FewShotDataModule:
    """The episodes of a configuration; nothing is read yet.

    Args:
        cfg: Composed configuration.
        seen_classes: See `FewShotDataModule`.
    """
    made = instantiate(_copied(cfg).datamodule, seen_classes=seen_classes, _convert_="all")
    return _checked(made, FewShotDataModule, "datamodule")


def build_base_datamodule(cfg: DictConfig) -> BaseLearnerDataModule:
    """The labelled pictures that a base learner is trained on; nothing is read yet."""
    made = instantiate(_copied(cfg).method.datamodule, _convert_="all")
    return _checked(made, BaseLearnerDataModule, "method.datamodule")


def build_trainer(
    cfg: DictConfig, callbacks: Sequence[lightning.Callback], with_logger: bool = True
) -> lightning.Trainer:
    """The Trainer of a configuration."""
    plugins: list[Any] = [WholeCheckpoints()]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # LastCheckpoint hears the signals
    loggers = build_loggers(cfg) if with_logger else []
    callbacks = [progress_display(), *callbacks]
    given = {"logger": loggers, "callbacks": callbacks, "plugins": plugins}
    return _checked(instantiate(cfg.trainer, **given, _convert_="all"), lightning.Trainer, "trainer")


def own_device(cfg: DictConfig) -> torch.device:
    """The device of this process."""
    return build_trainer(cfg, (), with_logger=False).strategy.root_device


def build_loggers(cfg: DictConfig) -> list[Logger]:
    """The loggers of a configuration.

    Raises:
        ValueError: One is no logger, or W&B is to log live, but knows no account; it would ask for one in the
            middle of a run.
    """
    loggers: list[Logger] = [
        _checked(instantiate(settings, _convert_="all"), Logger, f"logger.{name}")  # type: ignore[type-abstract]
        for name, settings in cfg.logger.items()
    ]
    live = [
        name
        for (name, settings), logger in zip(cfg.logger.items(), loggers, strict=True)
        if isinstance(logger, WandbLogger) and not settings.get("offline")
    ]
    if live and os.environ.get("WANDB_MODE", "online") == "online":
        import wandb

        if not wandb.login(prompt=False):
            raise ValueError(
                f"logger.{live[0]}.offline=false needs a W&B account: call `wandb login` once or set WANDB_API_KEY"
            )
    return loggers


def monitors(cfg: DictConfig) -> list[lightning.Callback]:
    """The callbacks that show how a training goes, in the terminal and in loggers if there are any."""
    callbacks: list[lightning.Callback] = [Speed(), ClassScores()]
    if cfg.logger:
        callbacks += [LearningRateMonitor("step"), SingularValues()]
        if cfg.method.stage == "few_shot":  # a base learner knows no episodes
            callbacks.append(EpisodePanels(**cfg.panels))
    return callbacks


def safeguards(cfg: DictConfig) -> list[lightning.Callback]:
    """The callbacks that keep a training: checkpoints of the best validation and of the last step, and guards."""
    folder = Path(cfg.run_dir) / CHECKPOINTS
    few = [BestCheckpoint(folder, "epoch{epoch:03d}-step{step}", cfg.keep_best)] if cfg.keep_best > 1 else []
    return [
        FiniteLoss(cfg.trainer.log_every_n_steps),
        StepSeeds(cfg.seed),
        BestCheckpoint(folder),
        *few,
        *_early_stopping(cfg),
        LastCheckpoint(folder, cfg.save_minutes),  # after the others, whose scores it holds
    ]


def _early_stopping(cfg: DictConfig) -> list[lightning.Callback]:
    """Ends a training whose validation has not improved for `patience` epochs."""
    if cfg.patience is None:
        return []
    if cfg.patience < 1:
        raise ValueError(f"patience={cfg.patience}: must be at least 1 epoch, or null to train to the end")
    within_epoch, between = cfg.trainer.val_check_interval, cfg.trainer.check_val_every_n_epoch or 1
    validations = max(1, round(cfg.patience / (within_epoch * between)))
    return [EarlyStopping("val/miou", mode="max", patience=validations, check_on_train_epoch_end=False)]
