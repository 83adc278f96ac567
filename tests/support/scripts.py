"""The scripts as a user starts them, on small pictures and a small network."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from fss.cli import exports
from support import ROOT, warm

SMALL = [
    "trainer=cpu",
    "batch_size=4",
    "pictures=2",
    "dataset.size=64",
    "dataset.train_reader.images=96",
    "dataset.eval_reader.images=64",
    "dataset.train_episodes=8",
    "dataset.val_episodes=4",
    "episodes=6",
    "dataset.num_workers=1",
    "presence_episodes=0",
    "dataset.epochs=2",
    "method.head.width=16",
]


def run(script: str, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a script as a user would, in a folder of its own, where its outputs go; it starts warm."""
    return warm.run(script, *overrides, cwd=cwd, environment={**os.environ, "WANDB_MODE": "offline"})


def fresh(script: str, *overrides: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The same in a Python that starts anew."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"}
    command = [sys.executable, str(ROOT / script), *overrides]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def succeed(script: str, *overrides: str, cwd: Path) -> str:
    done = run(script, *overrides, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def start(script: str, *overrides: str) -> None:
    """What a script does, in this process."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(script, list(overrides), return_hydra_config=True)
        HydraConfig.instance().set_config(cfg)
        with open_dict(cfg):
            del cfg["hydra"]  # as hydra.main hands it over
        importlib.import_module(script).main.__wrapped__(cfg)


def export(**settings: Any) -> None:
    """What `python -m fss.export` does, in this process."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        exports.export(compose("export", [f"{name}={value}" for name, value in settings.items()]))


def metrics(folder: Path) -> dict[str, Any]:
    found = list(folder.rglob("metrics.json"))
    assert len(found) == 1
    return json.loads(found[0].read_text())


def integers(content: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
    [seed] = content["seeds"]
    return {n: (c["intersection"], c["union"], c["episodes"]) for n, c in seed["classes"].items()}


def run_folder(root: Path) -> Path:
    return root / "outputs/shapes/pfenet-svf-efficientnet_lite0/1shot/fold0/seed0"
