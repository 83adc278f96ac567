"""docs/extending.md does what it says: its files are written and its commands run, as they stand on the page."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, warm
from support.recipes import PAGE, Recipe, recipes

SMALL = [  # appended to every command
    *("trainer=cpu", "batch_size=4", "pictures=1", "dataset.size=64", "dataset.train_episodes=8"),
    *("dataset.val_episodes=4", "dataset.epochs=1", "dataset.num_workers=0", "episodes=6"),
    "presence_episodes=0",
]
FEW_SHAPES = ["dataset.train_reader.images=96", "dataset.eval_reader.images=64"]
NO_DOWNLOAD = ["backbone.weights=null"]
ADDED = {
    "A head": FEW_SHAPES,
    "A backbone": [*FEW_SHAPES, *NO_DOWNLOAD],
    "A data set": [],
    "A tuning": FEW_SHAPES,
}
CHOSEN: dict[str, dict[str, Any]] = {  # what metrics.json then tells
    "A head": {"method": "cosine", "shot": 5, "train_shot": 1},
    "A backbone": {"backbone": "mobilenet", "tuning": "svf"},
    "A data set": {"dataset": "tiles"},
    "A tuning": {"tuning": "pointwise"},
}
FORKS = """
import json, os, shlex, sys
from pathlib import Path
from checks.forks import start, wait

here = Path.cwd()
for line in json.loads(sys.argv[1]):
    words = shlex.split(line)
    variables = [word.split("=", 1)[1] for word in words if word.startswith("PYTHONPATH=")]
    script, *settings = words[words.index("python") + 1 :]
    code = wait(start(here, *settings, before=lambda: sys.path.extend(variables), script=script, small=False))
    print(f"exit {code}", Path("log.txt").read_text(), sep="\\n")
    if code:
        sys.exit(f"{line} failed")
"""


def test_the_page_has_these_recipes() -> None:
    assert [recipe.title for recipe in recipes()] == list(ADDED) == list(CHOSEN)
    for recipe in recipes():
        assert [Path(path).suffix for path in recipe.files][:2] == [".py", ".yaml"]
        scripts = [
            word for line in recipe.commands for word in shlex.split(line) if word in ("train.py", "evaluate.py")
        ]
        assert scripts == ["train.py", "evaluate.py"]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the program, for files to be added to."""
    for part in ("fss", "conf", "hydra_plugins", "checks"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    for script in ("train.py", "evaluate.py"):
        shutil.copy(ROOT / script, tmp_path)
    return tmp_path


def lines(recipe: Recipe) -> list[str]:
    """The commands of a recipe, those that train and evaluate made small."""
    added = shlex.join([*SMALL, *ADDED[recipe.title]])
    return [f"{line} {added}" if "--config-dir" in line else line for line in recipe.commands]


def check(recipe: Recipe, checkout: Path) -> None:
    """What a training and an evaluation of a recipe leave."""
    chosen = CHOSEN[recipe.title]
    told: dict[Path, dict[str, Any]] = {p: json.loads(p.read_text()) for p in checkout.rglob("metrics.json")}
    [path] = [p for p, content in told.items() if {key: content[key] for key in chosen} == chosen]
    assert told[path]["episodes"] == 6
    assert 0 <= told[path]["miou"] <= 1
    assert json.loads((path.parents[2] / "training.json").read_text())["parameters"] > 0


@pytest.mark.slow
def test_recipes(checkout: Path) -> None:
    """In forks of one process, which spares starting Python eight times."""
    for recipe in recipes():
        recipe.write(checkout)
    typed = [line for recipe in recipes() for line in lines(recipe)]
    done = warm.run("-c", FORKS, json.dumps(typed), cwd=checkout, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    for recipe in recipes():
        check(recipe, checkout)


@pytest.mark.slow
@pytest.mark.nightly
@pytest.mark.parametrize("recipe", recipes(), ids=lambda recipe: recipe.title)
def test_recipes_as_they_are_typed(recipe: Recipe, checkout: Path) -> None:
    recipe.write(checkout)
    for line in lines(recipe):
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=checkout,
            env={
                **os.environ,
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "OMP_NUM_THREADS": "1",
            },
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    check(recipe, checkout)


def test_linters_accept_the_page(checkout: Path) -> None:
    for recipe in recipes():
        recipe.write(checkout)
    shutil.copy(ROOT / "pyproject.toml", checkout)
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "mine"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{PAGE}: {done.stdout}{done.stderr}"
