"""Evaluates a trained run, a checkpoint file, or a method that trains nothing.

python evaluate.py                                          # the run that `python train.py` left
python evaluate.py fold=all shot=5 protocol=bam             # every fold, 5 x 1000 episodes
python evaluate.py checkpoint=both episodes=500 seeds=[1,2,3]
python evaluate.py ckpt=FILE dataset=coco20i dataset.root=DIR backbone=resnet50
python evaluate.py shot=5 train_shot=1                      # what was trained with one support, with five
python evaluate.py dataset=pascal5i dataset.root=DIR trained_on=coco20i backbone=resnet50
python evaluate.py method=prior tuning=frozen               # the training-free prior mask
python evaluate.py method=bam setting=generalized           # base classes and the novel one in one label map
"""

from __future__ import annotations

from itertools import groupby
from typing import Any

import hydra
from omegaconf import DictConfig
from rich.console import Console

from fss.cli import evaluations, runs
from fss.cli.evaluations import Asked
from fss.evaluation.tables import folds_table
from fss.models.checkpoints import load_checkpoint, save_published


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    done = [metrics for asked in evaluations.asked(cfg) if (metrics := evaluate(asked))]
    for _, folds in groupby(done, key=lambda metrics: metrics["checkpoint"]):
        if len(together := list(folds)) > 1 and runs.is_first():
            Console().print(folds_table(together))


def evaluate(asked: Asked) -> dict[str, Any] | None:
    """One evaluation; returns what metrics.json holds of an ordinary one."""
    cfg, seen = asked
    runs.start(cfg)
    datamodule = runs.build_datamodule(cfg, seen)
    checkpoint = evaluations.find_checkpoint(cfg)
    datamodule.setup("test")
    base_classes = len(datamodule.base_classes if seen is None else seen)
    segmenter = runs.build_segmenter(cfg, base_classes, pretrained=checkpoint is None)
    if checkpoint is not None:
        load_checkpoint(segmenter, checkpoint)
    if cfg.export is not None:
        save_published(segmenter, cfg.export)
    if cfg.setting == "generalized":
        evaluations.test_generalized(cfg, segmenter, datamodule)
        return None
    return evaluations.test(cfg, segmenter, datamodule)


if __name__ == "__main__":
    main()
