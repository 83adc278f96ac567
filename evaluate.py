"""Evaluates a trained run, a checkpoint file, or a method that trains nothing.

python evaluate.py                                          # the run that `python train.py` left
python evaluate.py fold=1 shot=5 dataset.test_episodes=1000
python evaluate.py ckpt=FILE dataset=coco20i dataset.root=DIR backbone=resnet50
python evaluate.py method=prior tuning=frozen               # the training-free prior mask
python evaluate.py method=bam setting=generalized           # base classes and the novel one in one label map
"""

from __future__ import annotations

from pathlib import Path

import hydra
from omegaconf import DictConfig

from fss import runs
from fss.checkpoints import load_checkpoint, save_published


@hydra.main(version_base="1.3", config_path="conf", config_name="evaluate")
def main(cfg: DictConfig) -> None:
    cfg = runs.recall_run(cfg)
    runs.start(cfg)
    if cfg.method.name == "base":
        raise ValueError("a base learner is evaluated while it trains; evaluate what stands on it: method=bam")
    datamodule = runs.build_datamodule(cfg)
    checkpoint = runs.find_checkpoint(cfg)
    datamodule.setup("test")
    segmenter = runs.build_segmenter(cfg, len(datamodule.base_classes), pretrained=checkpoint is None)
    if checkpoint is not None:
        load_checkpoint(segmenter, checkpoint)
    if cfg.export is not None:
        save_published(segmenter, cfg.export)
    # results of a file of one's own go beside it, not among the runs
    if cfg.ckpt is None:
        folder, name = Path(cfg.run_dir), cfg.checkpoint
    else:
        file = Path(cfg.ckpt)
        folder, name = file.with_name(f"{file.stem}-evaluation"), str(file)
    if cfg.setting == "generalized":
        runs.test_generalized(cfg, segmenter, datamodule, folder, checkpoint=name)
    else:
        runs.test(cfg, runs.build_learner(cfg, segmenter), datamodule, folder, checkpoint=name)


if __name__ == "__main__":
    main()
