"""Trains a few-shot segmenter and evaluates it on novel classes.

python train.py                                                 # PFENet + SVF on the embedded data
python train.py dataset=coco20i dataset.root=DIR backbone=resnet50 shot=5 fold=1
"""

from __future__ import annotations

from pathlib import Path

import hydra
import wandb
from lightning.pytorch.callbacks import LearningRateMonitor, Timer
from omegaconf import DictConfig

from fss import runs


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> None:
    if not cfg.method.trained:
        raise ValueError(f"method={cfg.method.name} trains nothing: python evaluate.py method={cfg.method.name}")
    runs.start(cfg)
    datamodule = runs.build_datamodule(cfg)
    datamodule.setup("fit")  # first of all: data is what a user most often has to mend
    segmenter = runs.build_segmenter(cfg)
    hydra.utils.instantiate(cfg.tuning.apply)(segmenter.backbone)
    runs.print_parameters(segmenter)
    learner = runs.build_learner(cfg, segmenter)

    folder, timer = Path(cfg.run_dir), Timer()
    callbacks = [runs.checkpoint_callback(folder), timer]
    if cfg.logger.logger is not None:
        callbacks.append(LearningRateMonitor("step"))
    trainer = runs.build_trainer(cfg, callbacks)
    try:
        trainer.fit(learner, datamodule=datamodule)
    finally:
        wandb.finish()  # the next job of a sweep would go on in this one's run; without W&B it does nothing
    runs.write_training(folder, segmenter, timer)
    runs.test(cfg, learner, datamodule, folder, checkpoint="last")


if __name__ == "__main__":
    main()
