"""The script that reproduces claims: as bash reads it, and as Hydra composes what it types."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from support import ROOT, made_up

from fss.cli import recipe
from fss.report.__main__ import main
from fss.report.claims import FOLDS, Claim, load_claims, select
from fss.report.commands import commands
from fss.report.found import Found
from fss.report.script import script
from fss.report.verify import verify

CLAIMS = load_claims()
PYTHON = """#!/usr/bin/env bash
printf '%s\\0' "$@" >> typed; printf '\\n' >> typed
case "$*" in *"$FAILS"*) exit 3;; esac
"""


class Typed(NamedTuple):
    """A command of the script, as python receives it."""

    program: str
    words: list[str]


def typed(claims: Sequence[Claim], place: Path, fails: str = "nothing", **environment: str) -> list[Typed]:
    """What the script types in a checkout, where a python that only notes it stands in for the real one."""
    (place / "bin").mkdir(parents=True, exist_ok=True)
    (place / "bin/python").write_text(PYTHON)
    (place / "bin/python").chmod(0o755)
    (place / "train.py").touch()
    (place / "resnet50_v2.pth").touch()
    (place / "typed").unlink(missing_ok=True)
    (place / "all.sh").write_text(script(claims))
    path = {"PATH": f"{place / 'bin'}:{os.environ['PATH']}", "FAILS": fails, **environment}
    done = subprocess.run(["bash", "all.sh"], cwd=place, env=path, capture_output=True, text=True)
    assert done.returncode == (0 if fails == "nothing" else 3), done.stderr
    lines = [line.rstrip("\0").split("\0") for line in (place / "typed").read_text().splitlines()]
    return [Typed(words[1], words[2:]) if words[0] == "-m" else Typed(words[0], words[1:]) for words in lines]


@pytest.fixture(scope="module")
def of_all(tmp_path_factory: pytest.TempPathFactory) -> list[Typed]:
    """What the script for all claims types."""
    return typed(CLAIMS, tmp_path_factory.mktemp("checkout"))


def evaluations(told: Sequence[Typed]) -> list[DictConfig]:
    """The configurations of a script's evaluations of fold 0."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return [composed(command)[0] for command in of(told, "evaluate.py")]


def composed(command: Typed) -> tuple[DictConfig, list[str]]:
    """The configuration of a command for fold 0, and the overrides it comes from."""
    (folds,) = [word for word in command.words if word.startswith("fold=")]
    assert folds in ("fold=all", "fold=0,1,2,3")
    assert ("-m" in command.words) == (folds != "fold=all")
    overrides = [word for word in command.words if word not in ("-m", folds)] + ["fold=0"]
    return compose(command.program.removesuffix(".py"), overrides), overrides


def of(commands: Sequence[Typed], program: str) -> list[Typed]:
    return [command for command in commands if command.program == program]


def test_bash_reads_it() -> None:
    for claims in (CLAIMS, [c for c in CLAIMS if c.first], CLAIMS[:1]):
        done = subprocess.run(["bash", "-n"], input=script(claims), capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.nightly
def test_every_training_follows_its_recipe_and_finds_its_base_learner(of_all: list[Typed]) -> None:
    """Nothing differs from the recipe, and each stage looks where an earlier one wrote."""
    bases: set[str] = set()
    runs: set[str] = set()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for command in of(of_all, "train.py"):
            cfg, overrides = composed(command)
            assert recipe.differences(cfg, overrides) == {}
            assert cfg.resume
            if cfg.method.name == "base":
                assert not runs  # all come before
                bases.add(f"{cfg.run_dir}/checkpoints/best.ckpt")
                continue
            if cfg.start == "base_learner":
                assert cfg.method.base_checkpoint in bases
            else:
                assert cfg.recipe.name == "pfenet"
            assert cfg.run_dir not in runs
            runs.add(cfg.run_dir)
    assert {cfg.run_dir for cfg in evaluations(of_all)} == runs
    assert of_all[-1] == Typed("fss.report", ["outputs/published"])


@pytest.mark.slow
@pytest.mark.nightly
def test_every_evaluation_follows_its_recipe(of_all: list[Typed]) -> None:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        for command in of(of_all, "evaluate.py"):
            cfg, overrides = composed(command)
            assert recipe.differences(cfg, overrides) == {}
            assert cfg.checkpoint == "both"


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param([claim for claim in CLAIMS if claim.first], id="first"),
        pytest.param(CLAIMS, id="all", marks=pytest.mark.nightly),  # Hydra composes each evaluation
    ],
)
def test_what_the_script_evaluates_verifies_its_claims(claims: list[Claim], tmp_path: Path) -> None:
    """Results as published in the folders of its evaluations are found there and judge the claims."""
    for cfg in evaluations(typed(claims, tmp_path / "checkout")):
        told: dict[str, Any] = {group: cfg[group].name for group in ("dataset", "method", "tuning", "backbone")}
        told |= {"shot": cfg.shot, "exclude_novel": cfg.dataset.exclude_novel}
        (claim,) = [c for c in CLAIMS if made_up_identity(c) == told]
        outputs = tmp_path / Path(cfg.run_dir).parents[4]
        more: dict[str, Any] = {"checkpoint": "best", "protocol": cfg.protocol.name, "recipe": cfg.recipe.name}
        more |= {"train_shot": cfg.train_shot} if cfg.train_shot != cfg.shot else {}
        for fold in range(FOLDS):
            folder = made_up.evaluation(outputs, claim.folds[fold] / 100, fold=fold, **told, **more)
            assert folder.is_relative_to(tmp_path / cfg.run_dir.replace("fold0", f"fold{fold}"))
    assert {v.status for v in verify(claims, Found(tmp_path / "outputs/published"))} == {"verified"}


def made_up_identity(claim: Claim) -> dict[str, Any]:
    names = ("dataset", "method", "tuning", "shot", "exclude_novel")
    return {**{name: getattr(claim, name) for name in names}, "backbone": claim.network}


def test_commands_of_the_report_are_those_of_the_script(tmp_path: Path) -> None:
    """But for where they write, and that nothing is resumed."""
    found = Found(tmp_path)
    for verdict in verify([c for c in CLAIMS if c.first], found):
        script_says = typed([verdict.claim], tmp_path / "checkout", OUTPUTS="DIR_OF_RUNS")
        mine = [c.words for c in script_says if c.program in ("train.py", "evaluate.py")]
        report_says = [line.split()[2:] for line in commands(verdict, found)]
        assert report_says == [[w for w in words if w not in ("resume=true", "seed=0")] for words in mine]


def test_stages_of_two_shots_share_their_base_learners(tmp_path: Path) -> None:
    claims = select(CLAIMS, ["dataset=coco20i", "backbone=resnet50", "method=bam", "tuning=svf"])
    assert [c.shot for c in claims] == [1, 5]
    told = typed(claims, tmp_path)
    assert [c.program for c in told] == [
        *("fss.data.prepare", "fss.data.check", "train.py", "train.py", "train.py"),
        *("evaluate.py", "evaluate.py", "fss.report"),
    ]
    assert "method=base" in told[2].words
    assert {"backbone=resnet50_deep", "backbone.weights=resnet50_v2.pth"} <= set(told[2].words)
    assert told[0].words == ["coco20i", "--root", "data/coco20i", "--archives", "downloads", "--download"]


def test_original_data_at_both_shots_is_trained_once(tmp_path: Path) -> None:
    claims = select(CLAIMS, ["dataset=pascal5i", "exclude_novel=false", "backbone=vgg16"])
    told = typed(claims, tmp_path)
    assert len(of(told, "train.py")) == 1
    assert "shot=1" in of(told, "train.py")[0].words
    assert len(of(told, "evaluate.py")) == 2


def test_places_and_options_come_from_the_environment(tmp_path: Path) -> None:
    claims = select(CLAIMS, ["dataset=coco20i", "backbone=resnet50", "method=bam", "tuning=svf", "shot=1"])
    (tmp_path / "my weights.pth").touch()
    environment = {"OUTPUTS": "my runs", "SEED": "3", "RESNET50": "my weights.pth", "COCO_LIST": "my list.txt"}
    told = typed(claims, tmp_path, OPTIONS="trainer=ddp cache_gb=8", **environment)
    base, train = of(told, "train.py")
    (evaluate,) = of(told, "evaluate.py")
    for command in (base, train, evaluate):
        assert {"seed=3", "outputs=my runs", "trainer=ddp", "cache_gb=8"} <= set(command.words)
    assert "backbone.weights=my weights.pth" in base.words
    assert "dataset.eval_list=my list.txt" in train.words
    assert "dataset.eval_list=my list.txt" in evaluate.words
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        assert composed(train)[0].dataset.eval_list == "my list.txt"
        assert recipe.differences(*composed(train)) == {}
    assert told[-1].words == ["my runs"]


def test_it_stops_at_the_first_failure(tmp_path: Path) -> None:
    told = typed(CLAIMS[:1], tmp_path, fails="method=base")
    assert told[-1].program == "train.py"


def test_missing_weights_are_named_first(tmp_path: Path) -> None:
    (tmp_path / "train.py").touch()
    claims = select(CLAIMS, ["backbone=resnet50"])
    done = subprocess.run(["bash"], input=script(claims), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no resnet50_v2.pth: set RESNET50" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "train.py"]


def test_what_stages_need_is_told() -> None:
    text = script([c for c in CLAIMS if c.first])
    assert (
        "105,200 / 93,000 / 68,800 / 112,600 steps of 8 episodes" in text
    )  # 200 epochs of 4208, 3726, ... episodes
    assert "49,600 steps of 12 pictures" in text  # 100 epochs of 5953 pictures
    assert "136,800 steps of 12 pictures" in text  # 20 epochs of 82081 pictures
    assert "100 validations of 1000 episodes" in text  # COCO: 50 epochs, twice each
    assert "for 80 trainings 64 GB" in text  # four folds of 16 claims and 4 base learners


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        (["--bold"], 16),
        (["--all"], 54),
        (["dataset=coco20i", "method=bam", "shot=5", "backbone=resnet50"], 2),
        (["dataset=coco20i", "method=bam", "shot=5", "backbone=resnet50_deep", "tuning=svf"], 1),
        (["shot=1,5", "method=BAM", "--bold"], 8),
        (["recipe=pfenet"], 6),
        (["exclude_novel=False", "dataset=pascal5i"], 4),
    ],
)
def test_claims_are_named_by_settings(
    arguments: list[str], count: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["commands", *arguments]) == 0
    told = capsys.readouterr().out
    assert told.startswith("#!/usr/bin/env bash\n")
    assert told.count("python evaluate.py") == count


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["dataset=voc"], "dataset= takes coco20i, pascal5i"),
        (["folder=1"], "use dataset, backbone, method"),
        (["bam"], "use dataset, backbone, method"),
        (["shot="], "shot= takes 1, 5"),
        (["method=bam", "exclude_novel=false"], "no published claim agrees with all of them"),
        (["--bold", "tuning=frozen"], "tuning= takes svf"),
    ],
)
def test_unknown_claims_are_refused(arguments: list[str], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["commands", *arguments]) == 2
    assert why in capsys.readouterr().err
