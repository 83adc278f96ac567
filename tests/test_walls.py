"""Who may know whom: what each part of the project imports."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    [*ROOT.glob("fss/**/*.py"), *ROOT.glob("hydra_plugins/*.py"), ROOT / "train.py", ROOT / "evaluate.py"]
)
MAY_IMPORT_LIGHTNING = {
    "fss/meta_learner.py",
    "fss/base_learner.py",
    "fss/generalized_learner.py",
    "fss/data/datamodule.py",
    "fss/data/base_datamodule.py",
    "fss/evaluation.py",
    "fss/guards.py",
    "fss/preparation.py",
    "fss/resume.py",
    "fss/runs.py",
    "train.py",
    "evaluate.py",
}
MAY_IMPORT_HYDRA = {
    "train.py",
    "evaluate.py",
    "fss/runs.py",
    "fss/evaluations.py",
    "fss/data/check.py",
    "hydra_plugins/process_launcher.py",
}


def imports(path: Path) -> set[str]:
    """Full names of all modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def touches(path: Path, package: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for name in imports(path))


def files(folder: str) -> list[Path]:
    found = [path for path in SOURCES if path.is_relative_to(ROOT / folder)]
    assert found
    return found


def test_only_few_modules_know_lightning() -> None:
    callbacks = {str(path.relative_to(ROOT)) for path in files("fss/callbacks")}
    users = {str(path.relative_to(ROOT)) for path in SOURCES if touches(path, "lightning")}
    assert users <= MAY_IMPORT_LIGHTNING | callbacks


def test_only_the_scripts_know_hydra() -> None:
    users = {str(p.relative_to(ROOT)) for p in SOURCES if touches(p, "hydra") or touches(p, "omegaconf")}
    assert users == MAY_IMPORT_HYDRA


@pytest.mark.parametrize("path", files("fss/svf"), ids=lambda path: path.name)
def test_svf_knows_torch_alone(path: Path) -> None:
    foreign = {n for n in imports(path) if n.split(".")[0] not in {"torch", *sys.stdlib_module_names}}
    assert all(name.startswith("fss.svf") for name in foreign)


@pytest.mark.parametrize("path", files("fss/heads"), ids=lambda path: path.name)
def test_heads_know_neither_backbones_nor_data(path: Path) -> None:
    assert not any(
        touches(path, room) for room in ("fss.models.backbones", "fss.data", "fss.models.segmenter", "fss.svf")
    )


@pytest.mark.parametrize("path", files("fss/data"), ids=lambda path: path.name)
def test_data_knows_no_models(path: Path) -> None:
    rooms = (
        "fss.models.backbones",
        "fss.models.heads",
        "fss.models.segmenter",
        "fss.svf",
        "fss.training.meta_learner",
        "timm",
    )
    assert not any(touches(path, room) for room in rooms)
