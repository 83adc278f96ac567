"""Recipes: what each published program does, and what a run does differently."""

from __future__ import annotations

from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from support.scripts import ROOT

from fss.cli import build, recipe
from fss.training.callbacks.early_stopping import EarlyStopping

SIDES, FRACTIONS = [60, 30, 15, 8], [1.0, 0.5, 0.25, 0.125]
# What reference programs do, by recipe, method, data set and tuning.
PUBLISHED = [
    ("svf", "pfenet", "pascal5i", "svf", (0.015, 0.0015, "constant", 8, 200, "base_learner", 1.0, 1, 75, True)),
    ("svf", "pfenet", "coco20i", "svf", (0.015, 0.0015, "constant", 8, 50, "base_learner", 0.5, 1, 75, True)),
    ("svf", "bam", "coco20i", "svf", (0.015, 0.0015, "constant", 8, 50, "base_learner", 0.5, 1, 75, True)),
    ("svf", "pfenet", "pascal5i", "frozen", (0.15, 0.0, "poly", 8, 200, "base_learner", 1.0, 1, 75, True)),
    ("bam", "bam", "pascal5i", "frozen", (0.05, 0.0, "poly", 8, 200, "base_learner", 1.0, 1, 75, True)),
    ("pfenet", "pfenet", "pascal5i", "frozen", (0.025, 0.0, "poly", 4, 200, "imagenet", 1.0, 2, None, False)),
    ("pfenet", "pfenet", "coco20i", "frozen", (0.2, 0.0, "poly", 32, 50, "imagenet", 1.0, 1, None, False)),
]
# Networks: dilation, norms, pyramid of a ResNet-50 PFENet.
NETWORKS = [
    ("svf", "pascal5i", ("after_first", "eval", SIDES)),
    ("svf", "coco20i", ("after_first", "eval", SIDES)),
    ("bam", "coco20i", ("all", "eval", FRACTIONS)),
    ("pfenet", "pascal5i", ("all", "batch", SIDES)),
    ("pfenet", "coco20i", ("all", "batch", FRACTIONS)),
]


def composed(*typed: str) -> Any:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(typed))


def differences(*typed: str) -> dict[str, list[Any]]:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return recipe.differences(compose("train", list(typed)), list(typed))


@pytest.mark.parametrize(("name", "method", "dataset", "tuning", "values"), PUBLISHED)
def test_optimisation_of_the_published_programs(
    name: str, method: str, dataset: str, tuning: str, values: tuple[Any, ...]
) -> None:
    cfg = composed(f"recipe={name}", f"method={method}", f"dataset={dataset}", f"tuning={tuning}")
    trainer = cfg.trainer
    assert values == (
        *(cfg.tuning.head_lr, cfg.tuning.backbone_lr, cfg.tuning.schedule, cfg.batch_size, trainer.max_epochs),
        *(cfg.start, trainer.val_check_interval, trainer.check_val_every_n_epoch, cfg.patience),
        cfg.dataset.exclude_novel,
    )


@pytest.mark.parametrize(("name", "dataset", "values"), NETWORKS)
def test_networks_of_the_published_programs(name: str, dataset: str, values: tuple[Any, ...]) -> None:
    cfg = composed(f"recipe={name}", f"dataset={dataset}", "backbone=resnet50")
    assert values == (cfg.backbone.dilation, cfg.backbone.norms, OmegaConf.to_object(cfg.method.head.pyramid))


@pytest.mark.parametrize("method", ["bam", "base"])
def test_bam_and_its_base_learner_dilate_every_convolution(method: str) -> None:
    cfg = composed(f"method={method}", "dataset=pascal5i", "backbone=resnet50")
    assert (cfg.backbone.dilation, cfg.backbone.norms) == ("all", "eval")


def test_the_baseline_of_the_svf_program() -> None:
    cfg = composed("method=baseline", "dataset=pascal5i", "backbone=resnet50")
    assert (cfg.method.shots, cfg.method.train_query_reduction, cfg.backbone.dilation) == (
        "sum",
        False,
        "after_first",
    )


@pytest.mark.parametrize("dataset", ["shapes", "folder", "fss1000"])
def test_other_data_sets_start_from_imagenet(dataset: str) -> None:
    assert composed(f"dataset={dataset}", "dataset.root=x").start == "imagenet"


def test_a_recipe_does_not_differ_from_itself() -> None:
    typed = ["dataset=coco20i", "dataset.root=x", "method=bam", "backbone=resnet50", "shot=5", "fold=2", "seed=3"]
    assert differences(*typed, "backbone.weights=null", "outputs=y", "trainer=ddp") == {}
    assert differences("recipe=pfenet", "dataset=pascal5i", "tuning=frozen", "backbone=vgg16") == {}


def test_differences_name_the_setting_that_was_changed_and_not_its_copies() -> None:
    found = differences("dataset=pascal5i", "dataset.size=321", "tuning.head_lr=0.01", "start=imagenet")
    assert found == {
        "dataset.size": [321, 473],
        "start": ["imagenet", "base_learner"],
        "tuning.head_lr": [0.01, 0.015],
    }
    found = differences("dataset=pascal5i", "recipe.patience=10")
    assert found == {"recipe.patience": [10, 75]}


def test_an_experiment_differs_from_the_recipe_of_the_method_that_it_chooses() -> None:
    found = differences("experiment=demo")
    assert found["tuning.schedule"] == ["poly", "constant"]
    assert not {"method.name", "method.head.width"} & found.keys()


def test_patience_is_counted_in_validations() -> None:
    stops = build.safeguards(composed("dataset=coco20i", "backbone=vgg16"))
    [stop] = [callback for callback in stops if isinstance(callback, EarlyStopping)]
    assert isinstance(stop, EarlyStopping)
    assert stop.patience == 150  # 75 epochs of two validations
    stops = build.safeguards(composed("dataset=pascal5i", "recipe=pfenet"))
    assert not any(isinstance(callback, EarlyStopping) for callback in stops)
    with pytest.raises(ValueError, match="patience=0: must be at least 1"):
        build.safeguards(composed("patience=0"))


def test_a_fused_optimiser_follows_the_recipe() -> None:
    usual = ("method=pfenet", "dataset=pascal5i", "backbone=resnet50")
    assert differences(*usual, "optimizer.fused=true") == differences(*usual) == {}
