"""Every measurement in bench/ runs: nothing else would notice one that no longer does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.scripts import SMALL, succeed

# the least that each can be asked for, and words of what it prints
CASES = {
    "adapters": ("--size 65 --times 2 --passes 1", "factored once"),
    "busy": ("--seconds 1 --repeats 1", "times"),
    "evaluation": ("--size 105 --shots 1 --episodes 4 --part 2 --images 8", "mIoU ours"),
    "loading": ("--images 8 --runs 1 --pictures 300", "Start with a cached index of 300 pictures"),
    "memory": ("--episodes 20 --workers 1", "24 episodes"),
    "own_pictures marks": ("--model match --episodes 4", "strokes"),
    "own_pictures absent": ("--model match --episodes 4 --shots 1", "absent"),
    "page": ("--model match --times 1", "95"),
    "photographs": ("photographs.png", ""),
    "precision": ("--steps 4 dataset.size=64 compile=false backbone=efficientnet_lite0 batch_size=2", "bfloat16"),
    "prediction": ("--size 105 --shots 1 --queries 1", "published"),
    "scaling": ("--shots 1 --sizes 97 --steps 1 --json costs.json --figure costs.svg", "GFLOP/s"),
    "start": ("--repeats 1", "to its first step"),
    "svf_forms": ("--repeats 1", "factored"),
    "training": (
        "--methods pfenet --what training --shots 1 --size 97 --pairs 1 --json pairs.json",
        "of the published time",
    ),
    "tunings": ("efficientnet_lite0", "svf"),
}
WITH_RUN = {  # these look at a run with SVF
    "singular_values": ("{run}", "layer"),
    "own_pictures adapt": ("--model {run} --episodes 4 --draws 1", "5 supports"),
}


def measure(name: str, arguments: str, folder: Path) -> str:
    """What a measurement prints."""
    module, *words = name.split()
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{module}", *words, *arguments.split()],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_it_measures(name: str, tmp_path: Path) -> None:
    arguments, told = CASES[name]
    assert told in measure(name, arguments, tmp_path)
    for word in arguments.split():
        if word.endswith((".json", ".svg", ".png")):
            assert (tmp_path / word).stat().st_size


@pytest.mark.nightly
@pytest.mark.slow
def test_it_measures_a_run(tmp_path: Path) -> None:
    succeed("train.py", *SMALL, "method=pfenet_small", "tuning=svf", "run_dir=run", cwd=tmp_path)
    for name, (arguments, told) in WITH_RUN.items():
        assert told in measure(name, arguments.format(run=tmp_path / "run"), tmp_path)


def test_every_measurement_is_tried() -> None:
    """Two have tests of their own, two are no commands."""
    tried = {name.split()[0] for name in (*CASES, *WITH_RUN)}
    files = {path.stem for path in (ROOT / "bench").glob("*.py")}
    assert files - tried == {"__init__", "crowded", "real", "paired", "reference"}
