"""Trains a few-shot segmenter and evaluates it on novel classes; or trains a base learner.

python train.py                                                 # PFENet + SVF on the embedded data
python train.py dataset=coco20i dataset.root=DIR backbone=resnet50 shot=5 fold=1
python train.py method=base && python train.py method=bam       # BAM: first its base learner
"""

from __future__ import annotations

from pathlib import Path

import hydra
import lightning
import wandb
from hydra.utils import instantiate
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint, Timer
from omegaconf import DictConfig

from fss import evaluations, runs
from fss.checkpoints import load_base_learner


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    if not cfg.method.trained:
        raise ValueError(f"method={cfg.method.name} trains nothing: python evaluate.py method={cfg.method.name}")
    runs.start(cfg)
    checkpoint = runs.begin(cfg)
    if cfg.method.name == "base":
        train_base_learner(cfg, checkpoint)
    else:
        train_few_shot(cfg, checkpoint)


def train_few_shot(cfg: DictConfig, checkpoint: Path | None) -> None:
    """Trains on episodes, then evaluates."""
    base_checkpoint = runs.base_checkpoint(cfg)
    datamodule = runs.build_datamodule(cfg)
    datamodule.setup("fit")  # before any model: data is what a user most often has to mend
    segmenter = runs.build_segmenter(cfg, len(datamodule.base_classes), pretrained=base_checkpoint is None)
    if base_checkpoint is not None:
        load_base_learner(segmenter, base_checkpoint)
    segmenter.tune(instantiate(cfg.tuning.apply))
    runs.print_parameters(segmenter)
    if cfg.compile:
        segmenter.compile()
    learner = runs.build_learner(cfg, segmenter)
    timer, _ = fit(cfg, learner, datamodule, checkpoint)
    runs.write_training(Path(cfg.run_dir), segmenter, timer)
    evaluations.test(cfg, segmenter, datamodule)


def train_base_learner(cfg: DictConfig, checkpoint: Path | None) -> None:
    """Trains on labelled pictures, with validation on the same classes."""
    datamodule = instantiate(cfg.method.datamodule, _convert_="all")
    datamodule.setup("fit")
    classes = len(datamodule.base_classes)
    segmenter = runs.build_base_segmenter(cfg, classes)
    learner = instantiate(cfg.method.learner, segmenter=segmenter, base_classes=classes, _convert_="all")
    runs.print_parameters(segmenter)
    timer, checkpoints = fit(cfg, learner, datamodule, checkpoint)
    runs.write_training(Path(cfg.run_dir), segmenter, timer)
    runs.print_base_learner(checkpoints)


def fit(
    cfg: DictConfig,
    learner: lightning.LightningModule,
    datamodule: lightning.LightningDataModule,
    checkpoint: Path | None,
) -> tuple[Timer, ModelCheckpoint]:
    """Trains, from a checkpoint on if there is one; also tells how long it took."""
    timer = Timer()
    callbacks = [*runs.safeguards(cfg), timer]
    if cfg.logger.logger is not None:
        callbacks.append(LearningRateMonitor("step"))
    trainer = runs.build_trainer(cfg, callbacks)
    try:
        trainer.fit(learner, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    finally:
        wandb.finish()  # the next job of a sweep would go on in this one's run; without W&B it does nothing
    return timer, trainer.checkpoint_callback  # type: ignore[return-value]  # the best, first of safeguards


if __name__ == "__main__":
    main()
