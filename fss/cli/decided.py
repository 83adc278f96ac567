"""Settings that would change nothing, or not all that they should: what they are for is decided elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fss.cli.kinds import typed
from fss.configuration import conf_folder
from fss.files.plain import read_yaml

POINTER = re.compile(r"\$\{([\w.]+)\}")  # an interpolation of the whole value of another setting

# What the program itself gives to what it builds, and how to say what is wanted.
_GIVEN = {
    "trainer.callbacks": "callbacks are made as keep_best, save_minutes, patience and panels say: set these",
    "trainer.logger": "loggers are chosen with logger=none, csv, tensorboard or wandb, or several, '[csv,wandb]'",
    "trainer.plugins": "the program gives its own; precision and trainer.strategy choose what others do",
    **dict.fromkeys(("datamodule.seen_classes", "method.head.channels"), "the program finds this itself"),
    **dict.fromkeys(("learner.segmenter", "method.learner.segmenter"), "method and backbone decide this"),
}
_FOLLOWERS = {
    "trainer.precision": "precision",
    "backbone.network.weights": "backbone.weights",
    "datamodule.setting": "setting",
    **{f"method.datamodule.{name}": name for name in ("fold", "seed", "batch_size")},  # of a base learner
}
_ABSENT = object()


def check_decided(cfg: DictConfig) -> None:
    """Looks whether what was typed decides what it is for.

    What is built would be given another value all the same (`trainer.logger`), or would not be what the rest of
    the program goes by and what a run's folder says (`datamodule.fold`, where `fold` is another).

    Raises:
        ValueError: It does not; the message names the setting to type instead.
    """
    for place, mend in _GIVEN.items():
        part, _, name = place.rpartition(".")
        if name in (OmegaConf.select(cfg, part) or {}):
            raise ValueError(f"{place}: {mend}; leave this out")
    for place, setting in {**_FOLLOWERS, **_of_parts("datamodule", "learner")}.items():
        try:
            here = OmegaConf.select(cfg, place, throw_on_missing=True, default=_ABSENT)
            follows = here is _ABSENT or here == OmegaConf.select(cfg, setting, throw_on_missing=True)
        except OmegaConfBaseException:  # there is no value yet
            continue
        if not follows:
            raise ValueError(
                f"{place}={typed(here)}: it is always what {setting} is; type {setting}={typed(here)}"
            )


def _of_parts(*parts: str) -> dict[str, str]:
    """Settings of parts that every run has, by those whose values they are."""
    shared = read_yaml(Path(conf_folder(), "shared.yaml"))
    values = {f"{part}.{name}": value for part in parts for name, value in shared[part].items()}
    return {place: found[1] for place, value in values.items() if (found := POINTER.fullmatch(str(value)))}
