"""Writes a trained model for use elsewhere: as a model file, as ONNX, or for torch.export.

python -m fss.export model=RUN format=onnx
python -m fss.export model=model.safetensors format=torch
python -m fss.export model=RUN format=safetensors      # a model file, of a run from before there were any
"""

from __future__ import annotations

import hydra
from omegaconf import DictConfig

from fss.cli.errors import run_script
from fss.configuration import conf_folder


@hydra.main(version_base="1.3", config_path=conf_folder(), config_name="export")
def main(cfg: DictConfig) -> None:
    from fss.cli import exports  # brings torch, which --help need not wait for

    exports.export(cfg)


if __name__ == "__main__":
    run_script(main)
