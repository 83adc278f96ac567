"""Settings that would decide nothing, or only half of what they say, are refused with the setting to type."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from support import ROOT
from support.scripts import run

from fss.cli.decided import check_decided


def composed(script: str, *typed: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(script, list(typed))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("+trainer.callbacks=[]", "trainer.callbacks: callbacks are made as keep_best, save_minutes,"),
        ("+trainer.logger=false", "trainer.logger: loggers are chosen with logger=none, csv,"),
        ("+trainer.logger={_target_:lightning.pytorch.loggers.CSVLogger}", "trainer.logger: loggers are chosen"),
        ("+trainer.plugins=[]", "trainer.plugins: the program gives its own; precision"),
        ("+datamodule.seen_classes=[a]", "datamodule.seen_classes: the program finds this itself; leave this out"),
        ("+method.head.channels=[1,2,3]", "method.head.channels: the program finds this itself"),
        (
            "trainer.precision=16-mixed",
            "trainer.precision=16-mixed: it is always what precision is; type precision=",
        ),
        ("backbone.network.weights=null", "backbone.network.weights=null: it is always what backbone.weights is"),
        ("datamodule.fold=1", "datamodule.fold=1: it is always what fold is; type fold=1"),
        (
            "datamodule.test_episodes=3",
            "datamodule.test_episodes=3: it is always what episodes is; type episodes=3",
        ),
        ("learner.head_lr=1", "learner.head_lr=1: it is always what tuning.head_lr is; type tuning.head_lr=1"),
    ],
)
@pytest.mark.parametrize("script", ["train", "evaluate"])
def test_what_would_not_be_followed_is_refused(script: str, typed: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check_decided(composed(script, typed))


def test_a_base_learner_s_own_episodes_are_those_of_the_run() -> None:
    with pytest.raises(ValueError, match=r"^method\.datamodule\.fold=2: it is always what fold is; type fold=2$"):
        check_decided(composed("train", "method=base", "method.datamodule.fold=2"))


@pytest.mark.parametrize(
    "typed",
    [
        ("precision=bf16-mixed",),
        ("precision=bf16-mixed", "trainer.precision=bf16-mixed"),
        ("trainer=cpu", "trainer.max_epochs=3", "+trainer.max_time=00:00:01:00"),
        ("logger=none",),
        ("backbone=resnet50_deep",),  # whose weights have no value yet
        ("backbone.weights=null", "fold=2", "tuning.head_lr=1"),
        ("learner.foreground_weight=1.0",),
        ("method=base",),
    ],
)
def test_what_is_followed_is_taken(typed: tuple[str, ...]) -> None:
    check_decided(composed("train", *typed))


@pytest.mark.parametrize("script", ["train.py", "evaluate.py"])
def test_scripts_refuse_before_work_starts(script: str, tmp_path: Path) -> None:
    done = run(script, "+trainer.callbacks=[]", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: trainer.callbacks: ")
    assert not list(tmp_path.rglob("*.ckpt"))
