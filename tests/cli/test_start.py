"""What commands load before they know what to do: nothing that makes people wait."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

SLOW = {
    *("torch", "torchvision", "lightning", "timm", "torchmetrics"),
    *("albumentations", "cv2", "scipy", "skimage", "matplotlib", "pycocotools"),
    *("wandb", "tensorboard", "submitit", "joblib"),
}


def loaded(*command: str) -> set[str]:
    """Full names of the modules that a command of this Python imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *command], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout
    names = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pathlib" in names  # the list is there
    return names


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
    assert not loaded(*command.split()) & SLOW


@pytest.mark.slow
def test_an_evaluation_loads_no_logger_service(tmp_path: Path) -> None:
    few = ["episodes=2", "pictures=0", "dataset.eval_reader.images=64", "dataset.size=64", f"outputs={tmp_path}"]
    modules = loaded("evaluate.py", "method=prior", "tuning=frozen", "backbone.weights=null", *few)
    assert "timm" in modules
    assert not modules & {"wandb.sdk", "tensorboard"}  # `wandb` itself is listed: timm tries


def spins(**environment: str) -> str:
    """What OpenMP is told in a process of its own."""
    code = (
        "import os; from fss.processes import cores; cores.share_cores(); print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    kept = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=kept | environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_threads_give_way_unless_their_user_says_how() -> None:
    assert spins() == "3000"
    assert spins(GOMP_SPINCOUNT="7") == "7"
    assert spins(OMP_WAIT_POLICY="active") == "None"
