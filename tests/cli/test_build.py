"""What settings make is of the kind that is needed, or they are named."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig
from support import ROOT

from fss.cli import build
from fss.data.readers.reader import checked_reader
from fss.data.readers.shapes import Shapes

ELSE = "types.SimpleNamespace"  # takes whatever it is given


def composed(*typed: str) -> DictConfig:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", ["trainer=cpu", "backbone.weights=null", *typed])


BUILDERS: dict[str, tuple[Callable[[DictConfig], Any], str]] = {
    "backbone.network": (lambda cfg: build.build_backbone(cfg, pretrained=False), "backbone.Backbone"),
    "method.head": (lambda cfg: build.build_segmenter(cfg, 9, pretrained=False), "head.Head"),
    "learner": (lambda cfg: build.build_learner(cfg, build.build_segmenter(cfg, 9, False)), "MetaLearner"),
    "datamodule": (build.build_datamodule, "FewShotDataModule"),
    "trainer": (lambda cfg: build.build_trainer(cfg, ()), "Trainer"),
    "logger.csv": (build.build_loggers, "logger.Logger"),
}


@pytest.mark.parametrize("setting", BUILDERS)
def test_what_makes_something_else_is_named(setting: str) -> None:
    make, needed = BUILDERS[setting]
    message = rf"^{re.escape(setting)} makes a SimpleNamespace: name .*_target_ .*{re.escape(needed)}$"
    with pytest.raises(ValueError, match=message):
        make(composed(f"{setting}._target_={ELSE}"))


OF_BASE_LEARNERS: dict[str, Callable[[DictConfig], Any]] = {
    "method.learner": lambda cfg: build.build_base_learner(cfg, build.build_base_segmenter(cfg, 9), 9),
    "method.datamodule": build.build_base_datamodule,
    "method.head": lambda cfg: build.build_base_segmenter(cfg, 9),
}


@pytest.mark.parametrize("setting", OF_BASE_LEARNERS)
def test_so_is_what_makes_something_else_of_a_base_learner(setting: str) -> None:
    cfg = composed("method=base", f"{setting}._target_={ELSE}")
    with pytest.raises(ValueError, match=rf"^{re.escape(setting)} makes a SimpleNamespace"):
        OF_BASE_LEARNERS[setting](cfg)


def test_what_a_reader_lacks_is_named() -> None:
    class Unfinished:
        classes = ("a",)

        def __len__(self) -> int:
            return 1

    with pytest.raises(ValueError, match=r"Unfinished is no reader, it has no name, image, mask: "):
        checked_reader(Unfinished())
    reader = Shapes("train", 64, 4)
    assert checked_reader(reader) is reader


@pytest.mark.parametrize("part", ["train_reader", "eval_reader"])
@pytest.mark.parametrize("method", ["pfenet", "base"])
def test_readers_are_checked_before_they_are_used(method: str, part: str) -> None:
    cfg = composed(f"method={method}", f"dataset.{part}._target_={ELSE}", "dataset.train_reader.images=32")
    data = build.build_base_datamodule(cfg) if method == "base" else build.build_datamodule(cfg)
    with pytest.raises(ValueError, match="no reader"):
        data.setup("fit")
