"""From a composed configuration to objects, and from a finished run to its metrics: what the scripts share."""

from __future__ import annotations

import json
import logging
import subprocess
import warnings
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
from hydra import compose
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch.callbacks import ModelCheckpoint, RichProgressBar, Timer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.table import Table

from fss.backbones import Backbone
from fss.base_segmenter import BaseSegmenter
from fss.callbacks import ContactSheet
from fss.data.datamodule import FewShotDataModule
from fss.generalized_learner import GeneralizedEvaluation
from fss.meta_learner import MetaLearner
from fss.results import METRICS, PICTURES, write_json
from fss.segmenter import FewShotSegmenter
from fss.tuning import count_parameters

CHECKPOINTS = "checkpoints"
TRAINING = "training.json"
PACKAGES = ("torch", "torchvision", "lightning", "timm", "albumentations")


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
    lightning.seed_everything(cfg.seed, workers=True, verbose=False)


def _missing(settings: Any, path: str = "") -> list[str]:
    # OmegaConf.missing_keys stops at an interpolation of a missing value
    if isinstance(settings, dict):
        return [key for name, value in settings.items() for key in _missing(value, f"{path}.{name}".lstrip("."))]
    return [path] if settings == "???" else []


def _quiet_lightning() -> None:
    """Leaves out what Lightning says at every start and nobody can act on."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # the backbone is meant to be in eval mode while it trains
    warnings.filterwarnings("ignore", r"Found \d+ module\(s\) in eval mode")
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec\\)` is deprecated")
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
    return FewShotSegmenter(backbone, head)


def build_base_segmenter(cfg: DictConfig, base_classes: int) -> BaseSegmenter:
    """Backbone and head of the base learner."""
    backbone = _build_backbone(cfg, pretrained=True)
    return BaseSegmenter(
        backbone,
        instantiate(cfg.method.head, channels=backbone.channels.high, base_classes=base_classes, _convert_="all"),
    )


def _build_backbone(cfg: DictConfig, pretrained: bool) -> Backbone:
    return instantiate(cfg.backbone.network, **({} if pretrained else {"weights": None}))


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


def build_datamodule(cfg: DictConfig) -> FewShotDataModule:
    """The episodes of a configuration; nothing is read yet."""
    return instantiate(cfg.datamodule, _convert_="all")


def build_trainer(
    cfg: DictConfig, callbacks: Sequence[lightning.Callback], with_logger: bool = True
) -> lightning.Trainer:
    """The Trainer of a configuration."""
    wanted = with_logger and cfg.logger.logger is not None
    logger = instantiate(cfg.logger.logger, _convert_="all") if wanted else False
    return instantiate(cfg.trainer, logger=logger, callbacks=[RichProgressBar(), *callbacks], _convert_="all")


def checkpoint_callback(folder: Path) -> ModelCheckpoint:
    """Keeps the newest weights and those of the best validation mIoU; older files are replaced."""
    return ModelCheckpoint(
        folder / CHECKPOINTS,
        filename="best",
        monitor="val/miou",
        mode="max",
        save_last=True,
        enable_version_counter=False,
    )


def print_parameters(segmenter: FewShotSegmenter | BaseSegmenter) -> None:
    """Prints how many parameters of each part are trained."""
    table = Table("part", title="Parameters", title_justify="left")
    table.add_column("trained", justify="right")
    table.add_column("all", justify="right")
    parts = count_parameters(segmenter)
    for part in parts:
        table.add_row(part.part, f"{part.trained:,}", f"{part.all:,}")
    table.add_row("together", f"{sum(p.trained for p in parts):,}", f"{sum(p.all for p in parts):,}", style="bold")
    Console().print(table)


def recall_run(cfg: DictConfig) -> DictConfig:
    """The configuration of an evaluation, with what its run was trained with underneath.

    A run's own overrides (`method.head.width=64`) need not be typed again: they are taken from the run folder,
    and what is typed now goes over them.
    """
    saved = Path(cfg.run_dir) / ".hydra" / "overrides.yaml"
    if cfg.ckpt is not None or not saved.is_file():
        return cfg
    typed = HydraConfig.get().overrides.task
    merged = {override.partition("=")[0].lstrip("+~"): override for override in [*OmegaConf.load(saved), *typed]}
    return compose("evaluate", list(merged.values()))


def find_checkpoint(cfg: DictConfig) -> Path | None:
    """The checkpoint to evaluate; None for a method that trains nothing.

    Raises:
        FileNotFoundError: There is none; the message says the command that makes it.
        ValueError: `checkpoint` is neither last nor best.
    """
    if cfg.ckpt is not None:
        if not Path(cfg.ckpt).is_file():
            raise FileNotFoundError(f"ckpt={cfg.ckpt}: no such file; give a checkpoint, ours or a published one")
        return Path(cfg.ckpt)
    if not cfg.method.trained:
        return None
    if cfg.checkpoint not in ("last", "best"):
        raise ValueError(f"checkpoint={cfg.checkpoint}: must be last or best")
    path = Path(cfg.run_dir) / CHECKPOINTS / f"{cfg.checkpoint}.ckpt"
    if not path.is_file():
        typed = " ".join(o for o in HydraConfig.get().overrides.task if not o.startswith("checkpoint="))
        raise FileNotFoundError(
            f"no checkpoint {path}: train it first (python train.py {typed}) or name a file with ckpt=FILE"
        )
    return path


def print_base_learner(checkpoints: ModelCheckpoint) -> None:
    """Says how well a base learner did at its best, and where that is."""
    console = Console()
    console.print(f"mIoU of the base classes: {float(checkpoints.best_model_score or 0):.3f}")
    console.print(f"Base learner: {checkpoints.best_model_path}", soft_wrap=True)


def write_training(folder: Path, segmenter: FewShotSegmenter | BaseSegmenter, timer: Timer) -> None:
    """Notes beside a run's checkpoints how long it trained (seconds) and how many parameters."""
    trained = sum(part.trained for part in count_parameters(segmenter))
    write_json(folder / TRAINING, {"seconds": round(timer.time_elapsed("train"), 1), "parameters": trained})


def test(
    cfg: DictConfig,
    learner: MetaLearner,
    datamodule: FewShotDataModule,
    folder: Path,
    checkpoint: str,
) -> dict[str, Any]:
    """Evaluates a learner on the test episodes, writes `metrics.json` and pictures, prints the table.

    Args:
        cfg: Composed configuration.
        learner: What to evaluate.
        datamodule: Its episodes.
        folder: Where the results go.
        checkpoint: What to call the weights in the results.
    """
    training = folder / TRAINING
    trained = json.loads(training.read_text()) if training.is_file() else {}
    timer = Timer()
    callbacks = [timer, ContactSheet(str(folder / PICTURES), cfg.pictures)]
    trainer = build_trainer(cfg, callbacks, with_logger=False)
    trainer.test(learner, datamodule=datamodule, verbose=False)
    metric = learner.metric
    assert metric is not None
    scores = metric.compute()
    class_iou = scores["class_iou"].reshape(-1)  # torchmetrics makes a scalar of one class
    names = datamodule.class_names
    metrics = {
        **_identity(cfg, datamodule, checkpoint),
        "miou": float(scores["miou"]),
        "fb_iou": float(scores["fb_iou"]),
        "classes": {
            names[class_id - 1]: {
                "id": class_id,
                "iou": float(class_iou[row]),
                "intersection": int(metric.intersection[row, 1]),
                "union": int(metric.union[row, 1]),
                "episodes": int(metric.episodes[row]),
            }
            for row, class_id in enumerate(metric.classes)
        },
        "classes_left_out": datamodule.left_out,
        "train_seconds": trained.get("seconds"),
        "test_seconds": round(timer.time_elapsed("test"), 1),
        "trained_parameters": trained.get("parameters") if cfg.method.trained else 0,
        **_provenance(cfg),
    }
    path = folder / METRICS
    write_json(path, metrics)
    console = Console()
    console.print(f"mIoU {metrics['miou']:.3f}")
    console.print(f"Results: {path}", soft_wrap=True)
    if cfg.pictures:
        console.print(f"Pictures: {folder / PICTURES}", soft_wrap=True)
    return metrics


def test_generalized(
    cfg: DictConfig,
    segmenter: FewShotSegmenter,
    datamodule: FewShotDataModule,
    folder: Path,
    checkpoint: str,
) -> dict[str, Any]:
    """Evaluates in the generalised setting, writes `metrics-generalized.json`, prints the table.

    Args:
        cfg: Composed configuration.
        segmenter: With a base learner.
        datamodule: Its generalised episodes.
        folder: Where the results go.
        checkpoint: What to call the weights in the results.
    """
    learner = GeneralizedEvaluation(segmenter, cfg.threshold)
    trainer = build_trainer(cfg, (), with_logger=False)
    trainer.test(learner, datamodule=datamodule, verbose=False)
    names = datamodule.class_names
    rules: dict[str, dict[str, Any]] = {}
    for rule, metric in learner.metrics.items():
        scores = metric.compute()
        ids = [*datamodule.base_classes, *metric.novel_classes]
        rules[rule] = {
            **{part: float(scores[part]) for part in ("novel", "base", "all")},
            "classes": {
                names[class_id - 1]: {
                    "id": class_id,
                    "novel": row >= metric.base_classes,
                    "iou": float(scores["class_iou"][row]),
                    "intersection": int(metric.intersection[row]),
                    "union": int(metric.union[row]),
                }
                for row, class_id in enumerate(ids)
            },
        }
    metrics = {
        **_identity(cfg, datamodule, checkpoint),
        "threshold": cfg.threshold,
        "rules": rules,
        **_provenance(cfg),
    }
    path = folder / "metrics-generalized.json"
    write_json(path, metrics)
    table = Table("", title=f"Generalised, {datamodule.test_episodes} episodes: mIoU", title_justify="left")
    for part in ("novel", "base", "all"):
        table.add_column(part, justify="right")
    for rule, result in rules.items():
        table.add_row(f"{rule} first", *(f"{result[part]:.3f}" for part in ("novel", "base", "all")))
    console = Console()
    console.print(table)
    console.print(f"Results: {path}", soft_wrap=True)
    return metrics


def _identity(cfg: DictConfig, datamodule: FewShotDataModule, checkpoint: str) -> dict[str, Any]:
    """Which run on which episodes."""
    return {
        "dataset": cfg.dataset.name,
        "method": cfg.method.name,
        "tuning": cfg.tuning.name,
        "backbone": cfg.backbone.name,
        "fold": cfg.fold,
        "shot": cfg.shot,
        "seed": cfg.seed,
        "checkpoint": checkpoint,
        "eval_classes": cfg.dataset.eval_classes,
        "support_annotation": cfg.dataset.support_annotation,
        "episodes": datamodule.test_episodes,
        "eval_seed": datamodule.eval_seed,
    }


def _provenance(cfg: DictConfig) -> dict[str, Any]:
    """What made a result."""
    return {
        "git_revision": _git_revision(),
        "versions": {package: version(package) for package in PACKAGES},
        "config": OmegaConf.to_container(cfg, resolve=True),
    }


def _git_revision() -> str | None:
    try:
        command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # not a checkout, or no git: the result stands without it
        return None
