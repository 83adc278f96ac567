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
from lightning.pytorch.callbacks import Timer
from omegaconf import DictConfig

from fss.cli import evaluations, runs
from fss.models.checkpoints import load_base_learner
from fss.training.logs import log_scalars


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float:
    """Returns what a sweeper can maximise: the final mIoU of the evaluated classes."""
    if not cfg.method.trained:
        raise ValueError(f"method={cfg.method.name} trains nothing: python evaluate.py method={cfg.method.name}")
    runs.start(cfg)
    checkpoint = runs.begin(cfg)
    train = train_base_learner if cfg.method.name == "base" else train_few_shot
    try:
        score = train(cfg, checkpoint)
    except BaseException:
        wandb.finish(exit_code=1)
        raise
    wandb.finish()  # or the next run of this process would go on in this one's; without W&B it does nothing
    return score


def train_few_shot(cfg: DictConfig, checkpoint: Path | None) -> float:
    """Trains on episodes, then evaluates."""
    base_checkpoint = runs.base_checkpoint(cfg)
    datamodule = runs.build_datamodule(cfg)
    datamodule.setup("fit")  # before any model: data is what a user most often has to mend
    segmenter = runs.build_segmenter(cfg, len(datamodule.base_classes), pretrained=base_checkpoint is None)
    if base_checkpoint is not None:
        load_base_learner(segmenter, base_checkpoint)
    segmenter.to(runs.own_device(cfg)).tune(instantiate(cfg.tuning.apply))  # SVF factors weights where they are
    runs.print_parameters(segmenter)
    runs.compile_network(cfg, segmenter)
    learner = runs.build_learner(cfg, segmenter)
    trainer, timer = fit(cfg, learner, datamodule, checkpoint)
    runs.write_training(Path(cfg.run_dir), segmenter, timer)
    metrics = evaluations.test(cfg, segmenter, datamodule)
    log_scalars(trainer, {f"test/{name}": metrics[name] for name in ("miou", "fb_iou")})
    runs.print_end(cfg, trainer)
    return metrics["miou"]


def train_base_learner(cfg: DictConfig, checkpoint: Path | None) -> float:
    """Trains on labelled pictures, with validation on the same classes."""
    datamodule = instantiate(cfg.method.datamodule, _convert_="all")
    datamodule.setup("fit")
    classes = len(datamodule.base_classes)
    segmenter = runs.build_base_segmenter(cfg, classes)
    runs.compile_network(cfg, segmenter)
    learner = instantiate(cfg.method.learner, segmenter=segmenter, base_classes=classes, _convert_="all")
    runs.print_parameters(segmenter)
    trainer, timer = fit(cfg, learner, datamodule, checkpoint)
    runs.write_training(Path(cfg.run_dir), segmenter, timer)
    runs.print_end(cfg, trainer)
    score = trainer.checkpoint_callback.best_model_score  # type: ignore[union-attr]
    return float("nan" if score is None else score)  # a run that ended before its first validation has none


def fit(
    cfg: DictConfig,
    learner: lightning.LightningModule,
    datamodule: lightning.LightningDataModule,
    checkpoint: Path | None,
) -> tuple[lightning.Trainer, Timer]:
    """Trains, from a checkpoint on if there is one; also tells how long it took."""
    timer = Timer()
    trainer = runs.build_trainer(cfg, [*runs.safeguards(cfg), timer, *runs.monitors(cfg)])
    runs.log_configuration(cfg, trainer)
    trainer.fit(learner, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    return trainer, timer


if __name__ == "__main__":
    main()
