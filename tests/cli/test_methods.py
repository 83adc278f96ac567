"""Methods x backbones x shots x tunings are trained and evaluated, on small pictures.

Any two of them meet in the ordinary suite; the whole product is for the night: `make test-all`.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import instantiate
from omegaconf import DictConfig
from support import ROOT
from support.pairwise import pairs, pairwise
from support.tiny import cheap_svd

from fss.cli import build
from fss.data.datamodule import FewShotDataModule
from fss.models.backbones import Backbone
from fss.models.backbones.resnet import BLOCKS
from fss.models.base_segmenter import BaseLearnerSegmenter
from fss.models.checkpoints import load_base_learner
from fss.models.heads import BAM, Head
from fss.models.parameters import count_parameters
from fss.models.segmenter import FewShotSegmenter
from fss.training.meta_learner import MetaLearner

pytestmark = pytest.mark.usefixtures("one_thread")

CONF = ROOT / "conf"
SMALL = [
    "dataset.size=40",
    "dataset.train_reader.images=96",
    "dataset.eval_reader.images=96",
    "dataset.val_episodes=2",
    "dataset.num_workers=0",
    "batch_size=1",
]
BACKBONES = {
    "efficientnet_lite0": [],
    "resnet50": [],
    "resnet50_deep": [],
    "resnet101": [],
    "resnet101_deep": [],
    "timm": ["backbone.name=resnet18"],
    "vgg16": [],
    "vit": ["backbone.name=test_vit"],
}
SIZES = {  # presets that differ in size alone
    **dict.fromkeys(("dinov2_s", "dinov2_b", "dinov2_l"), "vit"),
    **dict.fromkeys(("efficientnet_lite1", "efficientnet_lite2"), "efficientnet_lite0"),
}
FEW_SHOT = sorted(
    {p.stem for p in (CONF / "method").glob("*.yaml")}
    - {"base", "match", "prior", "pfenet_small", "bam_small", "baseline_small", "cross_attention_small"}
)
TUNINGS = sorted(p.stem for p in (CONF / "tuning").glob("*.yaml"))


COMPARED = [tuning for tuning in TUNINGS if tuning in ("adapter", "lora", "svf_relu", "svf_z")]  # with svf
OTHERS = [tuning for tuning in TUNINGS if tuning not in COMPARED]
EVERY = list(itertools.product(FEW_SHOT, BACKBONES, (1, 5), TUNINGS))
PAIRWISE = [*pairwise(FEW_SHOT, BACKBONES, (1, 5), OTHERS), *pairwise(FEW_SHOT, ("timm", "vit"), (1, 5), COMPARED)]


@pytest.fixture(autouse=True)
def _shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """ResNets of full width but one block a layer: how parts fit does not depend on depth."""
    for depth in (50, 101):
        monkeypatch.setitem(BLOCKS, depth, [1, 1, 1, 1])


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(method: str, backbone: str, *overrides: str) -> DictConfig:
    width = [] if method in ("base", "match", "prior") else ["method.head.width=8"]
    base = ["method.base_width=16"] if method in ("bam", "base") else []
    return compose(
        "train",
        [
            f"method={method}",
            f"backbone={backbone}",
            "backbone.weights=null",
            *BACKBONES[backbone],
            *SMALL,
            *width,
            *base,
            *overrides,
        ],
    )


@cache
def network(backbone: str) -> Backbone:
    return instantiate(composed("prior", backbone).backbone.network)


@cache
def episodes(shot: int) -> FewShotDataModule:
    datamodule = build.build_datamodule(composed("bam", "timm", f"shot={shot}"))
    datamodule.setup("fit")
    return datamodule


def two_steps(**settings: Any) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        max_steps=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **settings,
    )


def test_every_backbone_is_known() -> None:
    assert {*BACKBONES, *SIZES} == {p.stem for p in (CONF / "backbone").glob("*.yaml")}
    assert set(SIZES.values()) <= set(BACKBONES)


def test_any_two_settings_meet_in_the_ordinary_suite() -> None:
    others = [case for case in EVERY if case[3] in OTHERS]
    assert set().union(*map(pairs, PAIRWISE)) >= set().union(*map(pairs, others))
    assert {(case[0], case[3]) for case in PAIRWISE} == set(itertools.product(FEW_SHOT, TUNINGS))
    assert set(PAIRWISE) <= set(EVERY)
    assert len(PAIRWISE) < len(EVERY) / 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "backbone", "shot", "tuning"),
    [pytest.param(*c, marks=[] if c in PAIRWISE else pytest.mark.nightly) for c in EVERY],
)
def test_trains_and_evaluates(
    method: str, backbone: str, shot: int, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "build_backbone", lambda *_: copy.deepcopy(network(backbone)))
    cfg = composed(method, backbone, f"shot={shot}", f"tuning={tuning}")
    datamodule = episodes(shot)
    segmenter = build.build_segmenter(cfg, len(datamodule.base_classes))
    assert isinstance(segmenter, FewShotSegmenter)
    assert isinstance(segmenter.head, Head)
    segmenter.tune(instantiate(cfg.tuning.apply, **({"svd": cheap_svd} if "svf" in tuning else {})))
    before = {n: p.detach().clone() for n, p in segmenter.named_parameters()}
    learner = build.build_learner(cfg, segmenter)
    assert isinstance(learner, MetaLearner)
    trainer = two_steps(num_sanity_val_steps=0, check_val_every_n_epoch=1000)
    trainer.fit(learner, datamodule=datamodule)
    assert trainer.global_step == 2
    moved = {n for n, p in segmenter.named_parameters() if not torch.equal(p, before[n])}
    trained = {n for n, p in segmenter.named_parameters() if p.requires_grad}
    assert moved <= trained
    assert any(n.startswith("head.") for n in moved)
    assert any(n.startswith("backbone.") for n in trained) is (tuning != "frozen")
    stages = {f"backbone stage {stage}" for stage in cfg.tuning.get("stages", [])}
    parts = count_parameters(segmenter)
    assert {p.part for p in parts if p.trained} == (stages & {p.part for p in parts}) | {"head"}

    [results] = two_steps().validate(learner, datamodule=datamodule, verbose=False)
    assert 0 <= results["val/miou"] <= 1
    assert learner.metric is not None
    assert int(learner.metric.episodes.sum()) == 2


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES)
def test_base_learner_then_bam(backbone: str, tmp_path: Path) -> None:
    cfg = composed("base", backbone, "batch_size=2")
    datamodule = instantiate(cfg.method.datamodule, _convert_="all")
    datamodule.setup("fit")
    segmenter = build.build_base_segmenter(cfg, len(datamodule.base_classes))
    assert isinstance(segmenter, BaseLearnerSegmenter)
    learner = instantiate(cfg.method.learner, segmenter=segmenter, base_classes=12, _convert_="all")
    before = copy.deepcopy(segmenter.state_dict())
    trainer = two_steps(limit_val_batches=2, num_sanity_val_steps=0, val_check_interval=2)
    trainer.fit(learner, datamodule=datamodule)
    after = segmenter.state_dict()
    # the whole network learns, norms' statistics too
    still = [n for n in after if torch.equal(before[n], after[n])]
    assert len(still) < 0.05 * len(after)
    assert 0 <= float(trainer.callback_metrics["val/miou"]) <= 1

    trainer.save_checkpoint(tmp_path / "best.ckpt", weights_only=True)
    bam = build.build_segmenter(composed("bam", backbone), 12, pretrained=False)
    load_base_learner(bam, tmp_path / "best.ckpt")
    assert isinstance(bam.head, BAM)
    loaded = {
        **{f"backbone.{n}": v for n, v in bam.backbone.state_dict().items()},
        **{f"head.{n}": v for n, v in bam.head.learner_base.state_dict().items()},
    }
    after = segmenter.without_gain().state_dict()
    assert after.pop("gain") == 1
    assert loaded.keys() == after.keys()
    assert all(torch.equal(loaded[n], after[n]) for n in after)
    # and it may start any other method
    cfg = composed("pfenet", backbone, f"backbone.weights={tmp_path / 'best.ckpt'}")
    other = instantiate(cfg.backbone.network)
    assert all(torch.equal(v, after[f"backbone.{n}"]) for n, v in other.state_dict().items())
