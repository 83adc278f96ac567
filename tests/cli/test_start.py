"""What commands load before they know what to do: nothing that makes people wait."""

from __future__ import annotations

import subprocess
import sys

import pytest
from support import ROOT

SLOW = {
    *("torch", "torchvision", "lightning", "timm", "torchmetrics"),
    *("albumentations", "cv2", "scipy", "skimage", "matplotlib", "pycocotools"),
    *("wandb", "tensorboard", "submitit", "joblib"),
}


@pytest.mark.parametrize(
    "command",
    [
        "train.py --help",
        "train.py --cfg job",
        "train.py --info defaults",
        "evaluate.py --help",
        "evaluate.py --cfg job fold=all",
        "-m fss.data.check --help",
        "-m fss.data.prepare --help",
        "-m fss.report --help",
        "-m fss.report compare --help",
    ],
)
def test_questions_are_answered_without_what_is_slow(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command.split()], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "pathlib" in loaded  # the list is there
    assert not loaded & SLOW
