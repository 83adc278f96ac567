"""Kinds of settings: what is taken, what is refused, and how that is told."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from support import ROOT

from fss.cli import kinds


@pytest.mark.parametrize(
    ("kind", "taken", "refused"),  # these with the beginning of what is told
    [
        (kinds.flag, [True, False], [("no", "true or false"), (1, "true or false"), (None, "true or false")]),
        (kinds.path, ["a", "./7"], [(7, "a path; put"), (1e3, "a path; put"), (True, "a path; put")]),
        (kinds.path, [" a"], [("", "one path"), (None, "one path")]),
        (kinds.whole(2), [2, 10**9], [(1, "at least 2"), (2.0, "a whole number"), (True, "a whole number")]),
        (kinds.whole(0), [0, 2**32 - 1], [(2**32, "at most 4294967295"), (10**20, "at most 4294967295")]),
        (kinds.whole(None), [-3], [(10**20, "at most 4294967295"), (-(10**20), "at least -4294967295")]),
        (kinds.whole(0, 9), [9], [(10, "at most 9"), (-1, "at least 0")]),
        (kinds.fraction, [0, 1, 0.5], [(-0.1, "in 0..1"), ("a", "a number"), (float("nan"), "in 0..1")]),
        (kinds.number(0), [0, 1e9], [(-1, "at least 0"), (False, "a number"), (float("inf"), "a finite number")]),
        (kinds.share, [1, 0.5], [(0, "in 0..1, above 0"), (1.5, "in 0..1, above 0"), (None, "in 0..1, above 0")]),
        (kinds.optional(kinds.whole(1)), [None, 1], [(0, "at least 1, or null"), ("x", "a whole number, or")]),
        (
            kinds.group("a", "b"),
            [OmegaConf.create({"a": 1}), OmegaConf.create({})],
            [(None, "a group of a, b alone"), (OmegaConf.create({"c": 1}), "a group of a, b alone")],
        ),
        (kinds.also(kinds.flag, "b"), [True, "b"], [("c", "true or false, or b"), (None, "true or false, or b")]),
        (
            kinds.listed(kinds.whole(0)),
            [OmegaConf.create([0, 1])],
            [
                (OmegaConf.create([]), "a list of one or more, such as [1]"),
                (1, "a list, such as [1,2]"),
                (None, "a list, such as [1,2]"),
                (OmegaConf.create([1, -1]), "a list of which each is at least 0"),
            ],
        ),
        (
            kinds.built,
            [OmegaConf.create({"_target_": "a.B", "c": 1})],
            [
                (value, "settings of what is built, with its class as _target_")
                for value in (None, 5, "a.B", OmegaConf.create({"c": 1}), OmegaConf.create({"_target_": None}))
            ],
        ),
        (
            kinds.built_later,
            [OmegaConf.create({"_target_": "a.B", "_partial_": True})],
            [
                (None, "settings of what is built, with its class as _target_"),
                (OmegaConf.create({"_partial_": True}), "settings of what is built, with its class as _target_"),
                (OmegaConf.create({"_target_": "a.B"}), "settings of what is built later"),
                (
                    OmegaConf.create({"_target_": "a.B", "_partial_": False}),
                    "settings of what is built later",
                ),
            ],
        ),
        (kinds.one_of("a", "b"), ["a"], [("c", "one of a, b"), (None, "one of a, b")]),
    ],
)
def test_what_is_taken(kind: kinds.Kind, taken: list[Any], refused: list[tuple[Any, str]]) -> None:
    assert [kind(value) for value in taken] == [None] * len(taken)
    for value, mend in refused:
        assert (kind(value) or "").startswith(mend), value


def test_settings_without_a_value_are_passed_over() -> None:
    cfg = OmegaConf.create({"a": "???", "b": "${a}", "c": {"d": "no"}, "e": "${nowhere}"})
    kinds.check(cfg, dict.fromkeys(("a", "b", "c.e", "e", "f"), kinds.flag))
    with pytest.raises(ValueError, match=r"^c\.d=no: must be true or false$"):
        kinds.check(cfg, {"c.d": kinds.flag})
    kinds.check(cfg, {"c.*": kinds.text, "a.*": kinds.flag, "f.*": kinds.flag})
    with pytest.raises(ValueError, match=r"^c\.d=no: must be true or false$"):
        kinds.check(cfg, {"c.*": kinds.flag})
    with pytest.raises(ValueError, match="without a default: a; give them as a=VALUE"):
        kinds.check_given(OmegaConf.create({"a": "???", "b": 1}))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            "logger.csv=null",
            "logger.csv=null: must be settings of what is built, with its class as _target_;",
        ),
        ("+logger.wandb=null", "logger.wandb=null: must be settings of what is built"),
        ("+logger.tensorboard=5", "logger.tensorboard=5: must be settings of what is built"),
        ("method.head=null", "method.head=null: must be settings of what is built"),
        ("tuning.apply=null", "tuning.apply=null: must be settings of what is built"),
        ("dataset.train_reader=null", "dataset.train_reader=null: must be settings of what is built"),
        ("optimizer._partial_=false", "optimizer={'_target_': 'torch.optim.SGD', '_partial_': False, "),
        ("~optimizer._partial_", "optimizer={"),
        ("tuning.apply._partial_=false", "tuning.apply={"),
        ("dataset.eval_reader._partial_=false", "dataset.eval_reader={"),
        ("seeds=[]", "seeds=[]: must be a list of one or more, such as [1] or [1,2]"),
        ("episodes=1000000000", "episodes=1000000000: must be at most 1000000"),
        ("dataset.val_episodes=1000001", "dataset.val_episodes=1000001: must be at most 1000000"),
        ("presence_episodes=2000000", "presence_episodes=2000000: must be at most 1000000"),
    ],
)
def test_what_nothing_can_be_built_from_is_told(typed: str, message: str) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose("train", [typed])
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        kinds.check(cfg, kinds.OF_RUNS)


@pytest.mark.parametrize("dataset", sorted(file.stem for file in (ROOT / "conf/dataset").glob("*.yaml")))
def test_what_comes_with_the_program_is_of_its_kinds(dataset: str) -> None:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        kinds.check(compose("evaluate", [f"dataset={dataset}", "fold=all"]), kinds.OF_RUNS)
