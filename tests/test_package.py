"""The wheel, installed where nothing else is, and the requirements that it declares."""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from support import ROOT
from support.scripts import SMALL

from fss.revision import git_revision

NAME = "fss-svf"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]


def declared(*extras: str) -> list[Requirement]:
    """What `pip install fss-svf[extras]` asks for."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [Requirement(line) for line in lines]


def by_name(requirements: Iterable[Requirement]) -> dict[str, str]:
    return {canonicalize_name(r.name): str(r.specifier) for r in requirements}


def test_both_files_ask_for_the_same() -> None:
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    everything = by_name(declared(*EXTRAS))
    assert everything.pop(NAME) == ""  # an extra that takes others in
    assert by_name(Requirement(line) for line in lines if line) == everything


def test_every_bound_has_its_reason() -> None:
    for line in (ROOT / "requirements.txt").read_text().splitlines():
        requirement, _, reason = line.partition("#")
        assert reason.strip() or not requirement.strip(), line


def test_extras_do_not_overlap() -> None:
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    names = [name for line in lines if (name := canonicalize_name(Requirement(line).name)) != NAME]
    assert len(names) == len(set(names))


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_the_program_and_its_files_alone(wheel: Path) -> None:
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no git checkout")
    expected = {
        f"fss/{name}" if name.startswith("conf/") else name
        for name in tracked.stdout.splitlines()
        if name.startswith(("fss/", "conf/", "hydra_plugins/"))
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert {"fss/conf/train.yaml", "fss/report/claims.yaml", "fss/report/report.html.j2"} <= expected
    assert held >= expected
    assert all(name.startswith(("fss/", "hydra_plugins/")) for name in held)


class Installed:
    """A virtual environment with the wheel and what it declares.

    It is as an installation would make it, except that the declared distributions and all that these require
    are links to those of the running environment: torch alone is gigabytes.
    """

    def __init__(self, folder: Path, wheel: Path, *extras: str) -> None:
        venv.create(folder, with_pip=False)
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        # the wheel first: it may share folders with others, and must not write through their links
        install = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet"]
        subprocess.run([*install, "--no-index", "--no-deps", "--no-compile", str(wheel)], check=True)
        packages = Path(self.run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip())
        for name, path in top_levels(closure(declared(*extras))):
            if not (packages / name).exists():
                (packages / name).symlink_to(path)

    @property
    def version(self) -> str:
        (information,) = self.folder.rglob("fss_svf-*.dist-info")
        return importlib.metadata.PathDistribution(information).version

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs the environment's Python, away from the checkout."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        done = subprocess.run(
            [str(self.python), *arguments], cwd=self.folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done


def closure(requirements: Iterable[Requirement]) -> dict[str, importlib.metadata.Distribution]:
    """The installed distributions that these need, and those that they need in turn."""
    found: dict[str, importlib.metadata.Distribution] = {}
    todo = [(r, frozenset(r.extras)) for r in requirements]
    seen = set(map(str, todo))
    while todo:
        requirement, extras = todo.pop()
        name = canonicalize_name(requirement.name)
        found[name] = importlib.metadata.distribution(name)
        for line in found[name].requires or ():
            needed = Requirement(line)
            wanted = [needed.marker is None or needed.marker.evaluate({"extra": e}) for e in ("", *extras)]
            pair = (needed, frozenset(needed.extras))
            if any(wanted) and str(pair) not in seen:
                seen.add(str(pair))
                todo.append(pair)
    return found


def top_levels(distributions: dict[str, importlib.metadata.Distribution]) -> Iterator[tuple[str, Path]]:
    """Name and place of every file and folder that distributions have at the top of site-packages."""
    for distribution in distributions.values():
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            yield name, Path(str(distribution.locate_file(name)))


def without(modules: str) -> str:
    """Code that ends with an error where any of these modules can be imported."""
    return f"""
from importlib.util import find_spec
here = [module for module in {modules.split()} if find_spec(module)]
assert not here, here
"""


@pytest.fixture(scope="session")
def plain(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """As `pip install fss-svf` leaves it."""
    return Installed(tmp_path_factory.mktemp("plain"), wheel)


@pytest.fixture(scope="session")
def training(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """As `pip install fss-svf[train]` leaves it."""
    return Installed(tmp_path_factory.mktemp("training"), wheel, "train")


def test_svf_needs_neither_lightning_nor_hydra_nor_wandb(plain: Installed) -> None:
    plain.run(
        "-c",
        without("lightning hydra omegaconf wandb torchmetrics albumentations")
        + """
import torch
from fss.svf import decompose, merge, singular_values
network = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Conv2d(8, 4, 1))
x = torch.randn(1, 3, 9, 9)
before = network(x)
decompose(network)
assert len(list(singular_values(network))) == 2
torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)
merge(network)
torch.testing.assert_close(network(x), before, rtol=1e-4, atol=1e-5)
""",
    )


def test_a_segmenter_answers_and_its_answer_can_be_seen(plain: Installed) -> None:
    plain.run(
        "-c",
        without("lightning hydra omegaconf wandb torchmetrics albumentations")
        + """
import torch
from fss.models.backbones import TimmBackbone
from fss.models.checkpoints import load_checkpoint
from fss.models.heads import PFENet
from fss.models.segmenter import FewShotSegmenter
from fss.models.tuning import svf
from fss.visualize import EpisodePicture, contact_sheet
backbone = TimmBackbone("tf_efficientnet_lite0")
head = PFENet(list(backbone.channels), width=16, pyramid=[1.0], dropout=0.0)
segmenter = FewShotSegmenter(backbone, head).eval()
segmenter.tune(svf)
query, support = torch.rand(1, 3, 64, 64), torch.rand(1, 1, 3, 64, 64)
mask = torch.ones(1, 1, 64, 64)
with torch.no_grad():
    answer = segmenter(query, support, mask)
assert answer.logits.shape == (1, 2, 64, 64)
picture = lambda image: (255 * image).byte()
sheet = contact_sheet([EpisodePicture("object", picture(query[0]), mask[0, 0], picture(support[0]), mask[0],
                                      prediction=answer.logits[0].argmax(0))])
assert min(sheet.size) >= 64
""",
    )


def test_commands_find_their_files(training: Installed) -> None:
    training.run("-c", without("wandb tensorboard wandb_workspaces pytest"))
    few = ("dataset.train_reader.images=40", "dataset.eval_reader.images=30")
    told = training.run("-m", "fss.data.check", *few, "pictures=0").stdout
    assert "shapes: 40 training and 30 evaluation pictures" in told
    assert "coco20i" in training.run("-m", "fss.data.prepare", "--help").stdout
    (training.folder / "outputs").mkdir()
    training.run("-m", "fss.report", "outputs")
    assert "<html" in (training.folder / "outputs" / "report.html").read_text()


@pytest.mark.slow
def test_an_installed_package_trains_and_evaluates(training: Installed) -> None:
    few = ["dataset.train_episodes=4", "dataset.val_episodes=2", "episodes=4", "pictures=0"]
    small = [*SMALL, *few, "dataset.epochs=1", "backbone.weights=null"]
    for command in ("fss-train", "fss-evaluate"):
        script = str(training.python.with_name(command))
        assert "mIoU" in training.run(script, *small).stdout
    (metrics,) = (training.folder / "outputs").rglob("metrics.json")
    assert json.loads(metrics.read_text())["git_revision"] == training.version


def test_a_checkout_is_told_by_git(tmp_path: Path) -> None:
    told = subprocess.run(["git", "-C", str(ROOT), "rev-parse", "HEAD"], capture_output=True, text=True)
    if told.returncode:
        pytest.skip("no git checkout")
    assert told.stdout.startswith(git_revision().removesuffix("-dirty").rpartition("-g")[2])


def test_svf_loads_torch_alone() -> None:
    code = """
import sys
import torch
before = set(sys.modules)
from fss.svf import decompose
news = {name for name in set(sys.modules) - before if name.split(".")[0] not in sys.stdlib_module_names}
assert all(n == "fss" or (n + ".").startswith("fss.svf.") for n in news), news
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
