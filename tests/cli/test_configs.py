"""The configuration groups compose where they meet, and build what they name.

Any two meet in the ordinary suite; all data sets x trainers x optimisers x scripts are for the night.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, MissingConfigException
from omegaconf import DictConfig
from omegaconf.errors import MissingMandatoryValue
from support import ROOT
from support.pairwise import pairs, pairwise

from fss.cli import build
from fss.data.folds import fold_classes
from fss.models.heads import Baseline

CONF = ROOT / "conf"
SCRIPTS = ("train", "evaluate")
WANDB = "lightning.pytorch.loggers.WandbLogger"
# What a group member needs besides its name, small and without downloads.
NEEDS = {
    "dataset=coco20i": ["dataset.root=nowhere"],
    "dataset=folder": ["dataset.root=nowhere"],
    "dataset=fss1000": ["dataset.root=nowhere"],
    **{f"dataset={name}": ["dataset.root=nowhere"] for name in ("deepglobe", "isic", "chestxray", "suim")},
    "dataset=pascal5i": ["dataset.root=nowhere"],
    "experiment=pascal5i_mini": ["dataset.root=nowhere"],
    "backbone=timm": ["backbone.name=resnet18"],
    "backbone=resnet50": ["backbone.weights=null"],
    "backbone=resnet50_deep": ["backbone.weights=null"],
    "backbone=resnet101": ["backbone.weights=null"],
    "backbone=resnet101_deep": ["backbone.weights=null"],
    "backbone=vgg16": ["backbone.weights=null"],
}


def members(group: str) -> list[str]:
    return sorted(f"{group}={path.stem}" for path in (CONF / group).glob("*.yaml"))


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        yield


def composed(*overrides: str, name: str = "train") -> DictConfig:
    needed = [extra for override in overrides for extra in NEEDS.get(override, [])]
    return compose(name, [*overrides, *needed])


SETTINGS = (*map(members, ("dataset", "trainer", "optimizer")), ["experiment=demo"], SCRIPTS)
PAIRWISE = {*pairwise(*SETTINGS), *itertools.product(members("experiment"), SCRIPTS)}
EVERY = [*itertools.product(*SETTINGS), *itertools.product(members("experiment"), SCRIPTS)]


def test_any_two_settings_meet_in_the_ordinary_suite() -> None:
    assert set().union(*map(pairs, PAIRWISE)) == set().union(*map(pairs, EVERY))
    assert set(EVERY) > PAIRWISE


@pytest.mark.parametrize(
    "combination",
    [
        pytest.param(each, id="-".join(each), marks=[] if each in PAIRWISE else pytest.mark.nightly)
        for each in EVERY
    ],
)
def test_the_rest(combination: tuple[str, ...], tmp_path: Path) -> None:
    *overrides, name = combination
    cfg = composed(*overrides, f"run_dir={tmp_path}", name=name)
    datamodule = build.build_datamodule(cfg)
    assert datamodule.eval_transform.size == cfg.dataset.size  # type: ignore[attr-defined]
    trainer = build.build_trainer(cfg, build.safeguards(cfg))
    assert trainer.max_epochs == cfg.dataset.epochs
    assert len(trainer.loggers) == 1


@pytest.mark.parametrize(
    ("override", "built"),
    [
        ("logger=csv", ["CSVLogger"]),
        ("logger=wandb", ["WandbLogger"]),
        ("logger=tensorboard", ["TensorBoardLogger"]),
        ("logger=[tensorboard,csv,wandb]", ["TensorBoardLogger", "CSVLogger", "WandbLogger"]),
        (
            "+logger={mine:{_target_:lightning.pytorch.loggers.WandbLogger,offline:true}}",
            ["CSVLogger", "WandbLogger"],
        ),
        ("logger=none", []),
        ("logger=[]", []),
    ],
)
@pytest.mark.parametrize("method", ["pfenet", "base"])
def test_loggers(override: str, built: list[str], method: str, tmp_path: Path) -> None:
    cfg = composed(override, f"method={method}", f"run_dir={tmp_path}")
    assert [type(logger).__name__ for logger in build.build_loggers(cfg)] == built
    assert not list(tmp_path.iterdir())  # nothing is opened before a run


def test_base_learner_is_found_by_bam_without_being_told() -> None:
    same = ("dataset=coco20i", "backbone=vgg16", "fold=2", "seed=7")
    base = composed("method=base", *same)
    assert base.run_dir == "outputs/coco20i/base-vgg16/fold2/seed7"
    for overrides in (("shot=1",), ("shot=5", "tuning=frozen")):
        bam = composed("method=bam", *same, *overrides)
        assert bam.method.base_checkpoint == f"{base.run_dir}/checkpoints/best.ckpt"
    other = composed("method=bam", *same, "method.base_seed=0", "outputs=runs")
    assert other.method.base_checkpoint == "runs/coco20i/base-vgg16/fold2/seed0/checkpoints/best.ckpt"


def test_run_folder_names_what_was_run() -> None:
    cfg = composed("dataset=coco20i", "backbone=vgg16", "tuning=frozen", "shot=5", "fold=2", "seed=7")
    assert cfg.run_dir == "outputs/coco20i/pfenet-frozen-vgg16/5shot/fold2/seed7"

    assert (cfg.optimizer.momentum, cfg.optimizer.weight_decay) == (0.9, 1e-4)
    assert (cfg.batch_size, cfg.dataset.size, cfg.trainer.max_epochs) == (8, 641, 50)
    assert (cfg.protocol.name, cfg.episodes, cfg.datamodule.eval_seed) == ("svf", 1000, 321)


def test_published_recipe_of_the_base_learner() -> None:
    cfg = composed("dataset=coco20i", "method=base")
    assert (cfg.batch_size, cfg.trainer.max_epochs, cfg.dataset.base.size) == (12, 20, 417)
    assert cfg.method.datamodule.train_transform.scale == [0.5, 2.0]
    assert cfg.method.datamodule.train_transform.keep == 0.85
    assert (cfg.method.learner.head_lr, cfg.method.learner.schedule) == (2.5e-3, "poly")


def test_folds_of_own_data_can_be_given(tmp_path: Path) -> None:
    cfg = composed("dataset=folder", "dataset.fold_scheme=[[1,2],[3]]", "fold=1", f"run_dir={tmp_path}")
    scheme = build.build_datamodule(cfg).fold_scheme
    assert fold_classes(4, 1, scheme) == ((3,), (1, 2, 4))


def test_published_recipe_of_pascal() -> None:
    cfg = composed("dataset=pascal5i")
    assert (cfg.batch_size, cfg.dataset.size, cfg.trainer.max_epochs) == (8, 473, 200)
    assert composed("dataset=pascal5i", "protocol=pfenet").episodes == 5001
    assert composed("dataset=coco20i", "protocol=pfenet").episodes == 20001
    assert cfg.datamodule.train_transform.scale == [0.9, 1.1]
    assert (cfg.datamodule.min_pixels, cfg.datamodule.exclude_novel) == (2048, True)
    assert (cfg.datamodule.fold_scheme, cfg.datamodule.test_episodes) == ("contiguous", 1000)
    assert cfg.method.head.pyramid == [60, 30, 15, 8]
    assert composed("dataset=coco20i", "method.pyramid=[6,3]").method.head.pyramid == [6, 3]
    base = composed("dataset=pascal5i", "method=base")
    assert (base.batch_size, base.trainer.max_epochs, base.dataset.base.size) == (12, 100, 417)
    assert (base.method.learner.head_lr, base.method.learner.backbone_lr) == (2.5e-3, 2.5e-4)


@pytest.mark.parametrize("group", ["dataset", "method", "backbone", "tuning", "trainer", "logger", "optimizer"])
def test_unknown_member_names_what_there_is(group: str) -> None:
    known = members(group)[0].partition("=")[2]
    with pytest.raises(MissingConfigException, match=f"(?s)Could not find '{group}/nothing'.*{known}"):
        composed(f"{group}=nothing")


def test_misspelt_setting_is_an_error() -> None:
    with pytest.raises(ConfigCompositionException, match="shots"):
        composed("shots=5")


def test_settings_without_a_sensible_default_must_be_given() -> None:
    cfg = compose("train", ["dataset=folder"])
    with pytest.raises(MissingMandatoryValue, match=r"dataset\.root"):
        _ = cfg.dataset.root


def test_experiment_goes_over_everything_else_and_the_command_line_over_it() -> None:
    cfg = composed("experiment=demo", "method.head.width=32")
    assert cfg.run_dir.startswith("outputs/demo/")
    assert (cfg.dataset.epochs, cfg.method.head.width) == (1, 32)


def test_settings_of_the_published_networks_reach_them() -> None:
    typed = ["backbone.dilation=after_first", "backbone.norms=batch", "backbone.weights=null"]
    of_baseline = ["method.shots=sum", "method.train_query_reduction=false", "method.head.width=8"]
    cfg = composed("method=baseline", "backbone=resnet50", *typed, *of_baseline)
    segmenter = build.build_segmenter(cfg, 12)
    assert isinstance(segmenter.head, Baseline)
    assert (segmenter.norms, segmenter.head.shots) == ("batch", "sum")
    assert not segmenter.head.down_query[0].weight.requires_grad
    assert segmenter.backbone.get_submodule("layer4.0.conv2").dilation == (2, 2)
    usual = build.build_segmenter(
        composed("method=baseline", "recipe=bam", "backbone=resnet50", typed[-1], of_baseline[-1]), 12
    )
    assert isinstance(usual.head, Baseline)
    assert (usual.norms, usual.head.shots) == ("eval", "mean")
    assert usual.head.down_query[0].weight.requires_grad
    assert usual.backbone.get_submodule("layer4.0.conv2").dilation == (4, 4)


@pytest.mark.parametrize("backbone", [m for m in members("backbone") if m != "backbone=timm"])
def test_every_backbone_says_what_its_norms_go_by(backbone: str) -> None:
    assert composed(backbone).backbone.norms == "eval"
