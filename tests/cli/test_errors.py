"""What a user sees of an error."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from support import warm
from support.scripts import ROOT
from torch._utils import ExceptionWrapper

from fss.cli import start
from fss.cli.errors import mendable
from fss.cli.requests import find_checkpoint
from fss.data.folds import fold_classes


def run(script: str, *typed: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    environment = {**{k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}, **environment}
    return warm.run(script, *typed, cwd=cwd, environment=environment)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["folds=1"], "error: there is no setting folds: is it fold?"),
        (["dataset.sise=3"], "error: there is no setting dataset.sise: is it dataset.size?"),
        (["panels.zzz=3"], "error: there is no setting panels.zzz; in panels there are episodes, every"),
        (["head_lr=3"], "error: there is no setting head_lr: is it dataset.base.head_lr or tuning.head_lr"),
        (["shot.a=3"], "error: there is no setting shot.a: "),
        (["metod.head.width=3"], "error: there is no setting metod"),
        (["fold=1="], "error: "),
        (["dataset=nothing"], "error: In 'shared': Could not find 'dataset/nothing'"),
        (["dataset=pascal5i", "start=imagenet"], "error: no folder data/pascal5i (dataset.root): put VOC 2012"),
        (["start=there"], "error: start=there: must be imagenet or base_learner"),
        (["method=bam", "start=imagenet"], "error: start=imagenet: method=bam needs a base learner"),
        (["trained_on=coco20i"], "error: trained_on=coco20i: a setting of evaluate.py"),
        (["method=prior"], "error: method=prior trains nothing"),
        (["method.head.width=abc"], "error: method.head.width=abc: must be a whole number"),
        (
            ["method.head.width=1000000000"],
            "error: method.head.width=1000000000: the head's weights do not fit",
        ),
        (
            ["method=bam", "dataset.base.width=1000000000"],
            "error: dataset.base.width=1000000000: the head's",
        ),
        (["batch_size=1000000000"], "error: dataset.size=128 with 1000000000 episodes of 1 supports needs about"),
        (["seed=100000000000000000000"], "error: seed=100000000000000000000: must be at most 4294967295"),
        (["dataset.size=1000000000"], "error: dataset.size=1000000000: must be at most 32768"),
        (["dataset.num_workers=1000000000"], "error: dataset.num_workers=1000000000: must be at most 1024"),
        (["cache_gb=1e15"], "error: cache_gb=1000000000000000.0: must be in 0..1e+06"),
        (
            ["method=null"],
            "error: a group is given what is no member of it, such as null: name one,",
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_what_can_be_mended_is_one_paragraph(typed: list[str], message: str, tmp_path: Path) -> None:
    done = run("train.py", *typed, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith(message)
    assert done.stderr.strip().count("\n") == 0
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_traceback_is_shown_on_request(tmp_path: Path) -> None:
    done = run("train.py", "start=there", cwd=tmp_path, HYDRA_FULL_ERROR="1")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "start=there: must be imagenet" in done.stderr


def test_evaluation_without_a_run(tmp_path: Path) -> None:
    done = run("evaluate.py", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: no checkpoint outputs/shapes/")


@pytest.mark.parametrize(
    ("typed", "own"),
    [
        (["method=pfenet_small", "shot=5", "train_shot=1", "episodes=6"], ["method=pfenet_small", "shot=1"]),
        (["method=bam", "setting=generalized", "threshold=0.6", "published=theirs.pth"], ["method=bam"]),
        (["adapt=true", "adaptation.steps=5", "checkpoint=both", "fold=all", "seed=1"], ["seed=1", "fold=2"]),
        (["backbone.weights='my weights.pth'"], ["backbone.weights='my weights.pth'"]),
        (
            ["dataset=pascal5i", "dataset.root=voc", "trained_on=coco20i", "backbone=resnet50"],
            ["backbone=resnet50", "dataset=coco20i"],
        ),
    ],
)
def test_the_command_to_train_first_is_that_of_the_missing_run(
    typed: list[str], own: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the folder of own settings, and nothing that train.py would refuse."""
    monkeypatch.setattr(start, "config_dir", lambda: ["--config-dir", "mine/conf"])
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("evaluate", [*typed, "fold=2", "checkpoint=last"])
        with pytest.raises(FileNotFoundError) as told:
            find_checkpoint(cfg, typed)
        compose("train", own)
    command = shlex.join(["python", "train.py", "--config-dir", "mine/conf", *own])
    assert f": train it first ({command}), name" in str(told.value)


def test_a_module_that_is_not_found_is_told_with_the_mend() -> None:
    with pytest.raises(InstantiationException) as raised:
        instantiate({"_target_": "mine_own.Head"})
    assert str(mendable(raised.value)).startswith("no module mine_own, which a setting names")


def test_what_a_library_refuses_to_be_built_from_is_told_with_the_settings() -> None:
    with pytest.raises(InstantiationException) as raised:
        instantiate({"method": {"head": {"_target_": "torch.nn.Dropout2d", "p": 2}}})
    told = str(mendable(raised.value))
    assert told.startswith("settings of method.head: dropout probability has to be between 0 and 1")


def test_what_a_loader_s_process_refuses_is_told_like_anything_else() -> None:
    def raised(raise_it: str) -> str | None:
        try:
            exec(raise_it, {"fold_classes": fold_classes})
        except ValueError:
            wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
        with pytest.raises(ValueError, match="Original Traceback") as told:
            wrapper.reraise()
        return mendable(told.value)

    assert raised("fold_classes(4, 9, 'contiguous')") == "fold=9: there are 4 folds, 0 to 3"
    assert raised("int('x')") is None


@pytest.mark.parametrize(
    ("wanting", "reason"),
    [
        (lambda: torch.empty(2**62), " (Storage size calculation overflowed with sizes=[4611686018427387904])"),
        (lambda: torch.empty(2**50), " ([enforce fail at"),
        (lambda: [0] * 2**60, ""),
        (lambda: instantiate({"_target_": "torch.empty", "_args_": [2**62]}), " (Storage size calculation"),
        (lambda: instantiate({"_target_": "numpy.zeros", "_args_": [2**55]}), " (Unable to allocate"),
    ],
)
def test_memory_that_is_not_there_is_told(wanting: Callable[[], object], reason: str) -> None:
    with pytest.raises((RuntimeError, MemoryError, InstantiationException)) as raised:
        wanting()
    told = str(mendable(raised.value))
    assert told.startswith(f"not enough memory{reason}")
    assert told.endswith(": lower batch_size, dataset.size, shot or what else was set large")


def test_a_fault_of_the_program_is_none_to_mend() -> None:
    with pytest.raises(TypeError) as raised:
        fold_classes("4", 0, "contiguous")  # type: ignore[arg-type]
    assert mendable(raised.value) is None
    with pytest.raises(ValueError, match="invalid literal") as foreign:
        exec("int('x')")
    assert mendable(foreign.value) is None
    with pytest.raises(ValueError, match="fold=9") as ours:
        fold_classes(4, 9, "contiguous")
    assert mendable(ours.value) == "fold=9: there are 4 folds, 0 to 3"
