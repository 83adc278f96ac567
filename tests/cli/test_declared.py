"""Settings of a wrong type, told before anything is built."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from support import ROOT
from torch import Tensor

from fss.cli.declared import check_declared

GROUPS = ("dataset", "method", "backbone", "tuning", "optimizer", "trainer", "recipe", "protocol", "experiment")


class Made:
    """Has a parameter of each kind."""

    def __init__(
        self,
        whole: int,
        number: float = 1.0,
        flag: bool = False,
        word: Literal["a", "b"] = "a",
        folder: Path | None = None,
        several: Sequence[float] = (),
        pair: tuple[int, float] = (1, 1.0),
        limit: int | float | None = None,
        rate: float | Tensor = 1.0,
        called: Callable[[], None] | None = None,
        table: Mapping[str, int] | None = None,
        anything: Any = None,
    ) -> None:
        pass


def composed(*typed: str) -> DictConfig:
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose("train", list(typed))


def made(**settings: Any) -> DictConfig:
    return OmegaConf.create({"part": {"_target_": f"{__name__}.Made", **settings}})


@pytest.mark.parametrize("group", GROUPS)
def test_what_comes_with_the_program_is_as_declared(group: str) -> None:
    for file in sorted((ROOT / "conf" / group).glob("*.yaml")):
        check_declared(composed(f"{group}={file.stem}"))


@pytest.mark.parametrize(
    ("name", "taken", "refused", "mend"),
    [
        ("whole", [0, -3, "???", "${number}"], ["a", 1.5, True, None, [1]], "a whole number"),
        ("number", [0, 1.5, float("inf")], ["a", False, None, [1.0]], "a number"),
        ("flag", [True], ["no", 1], "true or false"),
        ("word", ["b", "c"], [], ""),  # which of them, the constructors tell
        ("folder", ["x", None], [7, ["x"]], "path"),
        ("several", [[], [1, 2.5]], ["abc", 3, {"a": 1}], "a list, such as"),
        ("several", [], [["a"], [1, None]], "a list of which each is a number"),
        ("pair", [[1, 2.5]], [[1.5, 1.5], [1, "a"]], "a list of which each is a"),
        ("limit", [1, 1.5, None], ["a", [1]], "a number or null"),
        ("rate", [1.5], ["a", None], "a number"),
        ("called", ["x", {"_target_": "builtins.print"}], [], ""),
        ("table", [{"a": 1}], [], ""),
        ("anything", ["x", 1, [1], None], [], ""),
    ],
)
def test_what_is_taken(name: str, taken: list[Any], refused: list[Any], mend: str) -> None:
    for value in taken:
        check_declared(made(**{name: value}))
    for value in refused:
        with pytest.raises(ValueError, match=rf"^part\.{name}=.*: must be .*{mend}"):
            check_declared(made(**{name: value}))


def test_what_nothing_takes_is_told() -> None:
    with pytest.raises(
        ValueError, match=r"^part\.unknown: .*Made takes no such setting; it takes whole, number, "
    ):
        check_declared(made(unknown="x", _partial_=True))
    check_declared(OmegaConf.create({"part": {"_target_": "builtins.dict", "unknown": 1}}))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("+optimizer.foo=3", "optimizer.foo: torch.optim.AdamW takes no such setting; it takes params, lr"),
        ("+trainer.foo=3", "trainer.foo: lightning.Trainer takes no such setting"),
        ("+tuning.apply.foo=3", "tuning.apply.foo: fss.models.tuning.svf takes no such setting"),
        ("method.head.width=abc", "method.head.width=abc: must be a whole number"),
        ("tuning.head_lr=abc", "tuning.head_lr=abc: must be a number"),  # which the learner gets
        ("tuning.warmup_steps=x", "tuning.warmup_steps=x: must be a whole number"),
        ("method.pyramid=3", "method.pyramid=3: must be a list"),
        ("trainer.max_epochs=abc", "trainer.max_epochs=abc: must be a whole number or null"),
        ("optimizer.weight_decay=[1]", "optimizer.weight_decay=[1]: must be a number"),
        ("dataset.train_transform.scale=abc", "dataset.train_transform.scale=abc: must be a list"),
        ("dataset.train_reader.images=many", "dataset.train_reader.images=many: must be a whole number"),
    ],
)
def test_a_setting_is_named_as_it_was_typed(typed: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        check_declared(composed("experiment=demo", typed))


def test_what_cannot_be_looked_at_is_left_to_whoever_builds_it() -> None:
    check_declared(OmegaConf.create({"part": {"_target_": "nowhere.Thing", "size": "a"}}))
