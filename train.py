"""Trains a few-shot segmenter and evaluates it on novel classes; or trains a base learner.

python train.py                                                 # PFENet + SVF on the embedded data
python train.py dataset=coco20i dataset.root=DIR backbone=resnet50 shot=5 fold=1
python train.py method=base && python train.py method=bam       # BAM: first its base learner
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from fss.cli.errors import run_script


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(cfg: DictConfig) -> float:
    """Returns what a sweeper can maximise: the final mIoU of the evaluated classes."""
    from fss.cli import runs  # brings torch and Lightning, which --help need not wait for

    return runs.train(cfg)


if __name__ == "__main__":
    run_script(main)
