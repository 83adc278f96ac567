"""A training from its composed configuration to its last line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig, OmegaConf

from fss.cli import base_stage, build, evaluations, kinds, messages, model_files, overrides, recipe, start
from fss.cli.decided import check_decided
from fss.cli.declared import check_declared
from fss.cli.recorded import EVALUATIONS_OWN
from fss.evaluation.results import CHECKPOINTS, RECORD, SETTINGS, TRAINING
from fss.files.plain import write_json
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.checkpoints import load_base_learner
from fss.models.parameters import count_parameters
from fss.models.segmenter import FewShotSegmenter
from fss.revision import git_revision
from fss.training.logs import log_scalars
from fss.training.run_folder import check_processes, forget_earlier, note_settings, note_typed, prepare_folder


def train(cfg: DictConfig) -> float:
    """Trains what `method` names. Returns what a sweeper can maximise.

    Raises:
        ValueError: The settings do not make a training.
    """
    if not cfg.method.trained:
        name = cfg.method.name
        raise ValueError(f"method={name} trains nothing: python evaluate.py method={name} tuning=frozen")
    if misplaced := overrides.only(start.typed(), *EVALUATIONS_OWN):
        raise ValueError(
            f"{' '.join(misplaced)}: a setting of evaluate.py; train.py evaluates what it has trained"
        )
    kinds.check(cfg, {**kinds.OF_RUNS, "fold": kinds.whole(0)})
    check_declared(cfg)
    check_decided(cfg)
    start.prepare(cfg, needs_weights=cfg.start != "base_learner")
    base_checkpoint = base_stage.base_learner(cfg, start.typed(), start.is_first())
    checkpoint = begin(cfg)
    try:
        if cfg.method.stage == "base_learner":
            score = train_base_learner(cfg, checkpoint)
        else:
            score = train_few_shot(cfg, checkpoint, base_checkpoint)
    except BaseException:
        _finish_wandb(exit_code=1)
        raise
    _finish_wandb(exit_code=0)
    return score


def _finish_wandb(exit_code: int) -> None:
    """Ends W&B's run, if there is one: the next run of this process would go on in it."""
    if "wandb" in sys.modules:  # whatever logs to it has imported it
        import wandb

        wandb.finish(exit_code)


def train_few_shot(cfg: DictConfig, checkpoint: Path | None, base_checkpoint: Path | None) -> float:
    """Trains on episodes, then evaluates. Returns the mIoU of the evaluated classes.

    Args:
        cfg: Composed configuration.
        checkpoint: To go on from; None to begin.
        base_checkpoint: Of the base learner whose backbone training starts from; None for `backbone.weights`.
    """
    datamodule = build.build_datamodule(cfg)
    datamodule.setup("fit")  # before any model: data is what a user most often has to mend
    segmenter = build.build_segmenter(cfg, len(datamodule.base_classes), weights=base_checkpoint)
    if base_checkpoint is not None and segmenter.head.has_base_learner:
        load_base_learner(segmenter, base_checkpoint)
    # SVF factors weights where they are
    segmenter.to(build.own_device(cfg)).tune(instantiate(cfg.tuning.apply))
    if cfg.checkpointing:
        segmenter.keep_less()
    build.check_memory(cfg, segmenter, training=True)
    build.compile_network(cfg, segmenter)
    learner = build.build_learner(cfg, segmenter)
    trainer = fit(cfg, learner, segmenter, datamodule, checkpoint)
    metrics = evaluations.evaluate_standard(cfg, segmenter, datamodule)
    if start.is_first():
        model_files.write_model_files(
            cfg, [datamodule.class_names[class_id - 1] for class_id in datamodule.base_classes]
        )
    log_scalars(trainer, {f"test/{name}": metrics[name] for name in ("miou", "fb_iou")})
    if start.is_first():
        messages.print_end(cfg, trainer, start.typed())
    return metrics["miou"]


def train_base_learner(cfg: DictConfig, checkpoint: Path | None) -> float:
    """Trains on labelled pictures. Returns the best mIoU of the base classes, validated on other pictures."""
    datamodule = build.build_base_datamodule(cfg)
    datamodule.setup("fit")
    classes = len(datamodule.base_classes)
    segmenter = build.build_base_segmenter(cfg, classes)
    build.compile_network(cfg, segmenter)
    learner = build.build_base_learner(cfg, segmenter, classes)
    trainer = fit(cfg, learner, segmenter, datamodule, checkpoint)
    if start.is_first():
        messages.print_end(cfg, trainer, start.typed())
    score = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    return float("nan" if score is None else score)  # a run that ended before its first validation has none


def fit(
    cfg: DictConfig,
    learner: lightning.LightningModule,
    segmenter: FewShotSegmenter | BaseLearnerSegmenter,
    datamodule: lightning.LightningDataModule,
    checkpoint: Path | None,
) -> lightning.Trainer:
    """Trains, from a checkpoint on if there is one, and notes how long it took."""
    if start.is_first():
        messages.print_parameters(segmenter)
    timer = Timer()
    trainer = build.build_trainer(cfg, [*build.safeguards(cfg), timer, *build.monitors(cfg)])
    for logger in trainer.loggers:
        logger.log_hyperparams({**settings_of(cfg), "git_revision": git_revision()})
    trainer.fit(learner, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    if start.is_first():
        folder = Path(cfg.run_dir)
        forget_earlier(folder / CHECKPOINTS)
        trained = sum(part.trained for part in count_parameters(segmenter))
        write_json(folder / TRAINING, {"seconds": round(timer.time_elapsed("train"), 1), "parameters": trained})
    return trainer


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
    check_processes(build.build_trainer(cfg, (), with_logger=False), cfg.batch_size)
    folder, first = Path(cfg.run_dir), start.is_first()
    checkpoint = prepare_folder(folder / CHECKPOINTS, cfg.resume, first)
    if first:
        model_files.forget_model_files(folder)
        settings = settings_of(cfg)
        note_settings(folder / SETTINGS, settings, cfg.resume)
        note_typed(folder / RECORD, start.typed())
        messages.print_settings(cfg, settings["differs_from_recipe"])
    return checkpoint


def settings_of(cfg: DictConfig) -> dict[str, Any]:
    """Every setting of a run as plain values."""
    # a base learner has settings of its own in place of these
    unused = ("learner", "datamodule", "tuning") if cfg.method.stage == "base_learner" else ()
    settings = {
        str(key): OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
        for key, value in cfg.items()
        if key not in unused
    }
    return {**settings, "differs_from_recipe": recipe.differences(cfg, start.typed())}
