"""What kinds of values the settings of a command take, looked at before work starts.

Hydra has read the values: `no` and `off` are text to it, which would count as true, and a folder named 2024 is a
number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import InterpolationResolutionError, MissingMandatoryValue

from fss.display.shown import shown

Kind = Callable[[Any], str | None]  # what a value must be; None if it is
MOST = 2**32 - 1  # of whole numbers: the largest seed that numpy takes
EPISODES = 10**6  # of an evaluation: they are drawn before it starts, a million in a minute; papers ask for 20 000


def check(cfg: DictConfig, kinds: Mapping[str, Kind]) -> None:
    """Looks whether settings are of their kinds.

    Those without a value yet, or whose value refers to what is not there, are passed over.

    Args:
        cfg: Composed configuration.
        kinds: By full name of a setting; `GROUP.*` stands for all in a group.

    Raises:
        ValueError: One is not; the message says what it must be.
    """
    for name, kind in ((name, kind) for named, kind in kinds.items() for name in _all_of(cfg, named)):
        try:
            value = OmegaConf.select(cfg, name, throw_on_missing=True, default=_ABSENT)
        except (MissingMandatoryValue, InterpolationResolutionError):
            continue
        if value is not _ABSENT and (mend := kind(value)) is not None:
            raise ValueError(f"{name}={typed(value)}: must be {mend}")


def _all_of(cfg: DictConfig, name: str) -> list[str]:
    """The settings that a name stands for."""
    if not name.endswith(".*"):
        return [name]
    group = OmegaConf.select(cfg, name[:-2])
    return [name[:-1] + str(each) for each in group] if isinstance(group, DictConfig) else []


def check_given(cfg: DictConfig) -> None:
    """Raises a ValueError that names the settings without a default that were not given."""
    if missing := sorted(OmegaConf.missing_keys(cfg)):
        raise ValueError(f"settings without a default: {', '.join(missing)}; give them as {missing[0]}=VALUE")


def flag(value: Any) -> str | None:
    """True or false."""
    return None if isinstance(value, bool) else "true or false"


def text(value: Any) -> str | None:
    """A text that is not empty."""
    return None if isinstance(value, str) and value.strip() else "a text"


def path(value: Any) -> str | None:
    """A path; one that Hydra has read as a number may have been spelt otherwise (2024_01)."""
    if isinstance(value, bool | int | float):
        return "a path; put ./ before a name that reads as a number, or as true or false"
    return None if isinstance(value, str) and value.strip() else "one path"


def whole(least: int | None, most: int = MOST) -> Kind:
    """A whole number from `least` on, up to `most`; None for any of at most that size."""
    low = -most if least is None else least

    def kind(value: Any) -> str | None:
        if not isinstance(value, int) or isinstance(value, bool):
            return "a whole number"
        return f"at least {low}" if value < low else f"at most {most}" if value > most else None

    return kind


def number(least: float | None, most: float | None = None) -> Kind:
    """A finite number from `least` on, up to `most`; None for any."""

    def kind(value: Any) -> str | None:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return "a number"
        if least is not None and math.isinf(value):
            return "a finite number"
        if least is None or (value >= least and (most is None or value <= most)):  # NaN is neither
            return None
        return f"at least {least:g}" if most is None else f"in {least:g}..{most:g}"

    return kind


def one_of(*words: str) -> Kind:
    """One of some words."""
    return lambda value: None if isinstance(value, str) and value in words else f"one of {', '.join(words)}"


def also(kind: Kind, one: str | None) -> Kind:
    """What is of a kind, or one value besides."""
    return lambda value: None if value == one or (mend := kind(value)) is None else f"{mend}, or {typed(one)}"


def optional(kind: Kind) -> Kind:
    """What is of a kind, or null."""
    return also(kind, None)


def listed(kind: Kind) -> Kind:
    """A list of things of a kind, which is not empty."""

    def of_list(value: Any) -> str | None:
        if not isinstance(value, ListConfig):
            return "a list, such as [1,2]"
        if not value:
            return "a list of one or more, such as [1] or [1,2]"
        mends = (f"a list of which each is {mend}" for one in value if (mend := kind(one)) is not None)
        return next(mends, None)

    return of_list


def group(*names: str) -> Kind:
    """A group of settings with these names alone."""

    def kind(value: Any) -> str | None:
        known = isinstance(value, DictConfig) and all(name in names for name in value)
        return None if known else f"a group of {', '.join(names)} alone"

    return kind


def built(value: Any) -> str | None:
    """Settings of something that is built, whose class they name."""
    known = isinstance(value, DictConfig) and text(value.get("_target_")) is None
    return None if known else "settings of what is built, with its class as _target_"


def built_later(value: Any) -> str | None:
    """Settings of what is built only once the run knows what to give it, such as an optimiser's parameters."""
    if (mend := built(value)) is not None:
        return mend
    return None if value.get("_partial_") is True else "settings of what is built later, with _partial_: true"


def logger(value: Any) -> str | None:
    """Settings of a logger."""
    mend = built(value)
    return None if mend is None else f"{mend}; logger=none logs nothing"


def share(value: Any) -> str | None:
    """A fraction above 0."""
    return None if value and fraction(value) is None else "in 0..1, above 0"


fraction = number(0, 1)
precision = one_of("32-true", "bf16-mixed", "16-mixed")

# Of train.py and evaluate.py alike.
OF_RUNS: Mapping[str, Kind] = {
    "reuse": group("limit_gb", "batch"),
    "panels": group("episodes", "every_n_epochs"),
    **dict.fromkeys(("trainer", "learner", "datamodule", "backbone.network", "method.head"), built),
    **dict.fromkeys(("optimizer", "tuning.apply", "dataset.train_reader", "dataset.eval_reader"), built_later),
    **dict.fromkeys(("dataset.train_transform", "dataset.eval_transform"), built),
    "method.learner.optimizer": built_later,
    "logger.*": logger,
    **dict.fromkeys(("tf32", "checkpointing", "resume"), flag),
    **dict.fromkeys(("dataset.exclude_novel", "method.train_base"), flag),
    **dict.fromkeys(("shot", "train_shot", "batch_size", "reuse.batch", "dataset.epochs"), whole(1)),
    **dict.fromkeys(("episodes", "dataset.val_episodes"), whole(1, EPISODES)),
    "dataset.size": whole(1, 2**15),  # pixels of a side: a picture has a hundred million at most
    **dict.fromkeys(("dataset.eval_batch_size", "panels.every_n_epochs"), whole(1)),
    **dict.fromkeys(("seed", "pictures", "keep_best", "panels.episodes"), whole(0)),
    "presence_episodes": whole(0, EPISODES),
    "dataset.num_workers": whole(0, 1024),  # processes, each of hundreds of MB
    "dataset.min_pixels": whole(0),
    **dict.fromkeys(("dataset.train_episodes", "patience"), optional(whole(1))),
    "fold": also(whole(0), "all"),
    "seeds": listed(whole(0)),
    **dict.fromkeys(("tuning.head_lr", "tuning.backbone_lr"), number(0)),
    **dict.fromkeys(("dataset.base.head_lr", "dataset.base.backbone_lr"), number(0)),
    **dict.fromkeys(("optimizer.weight_decay", "optimizer.momentum"), number(0)),
    **dict.fromkeys(("dataset.base.width", "dataset.base.epochs", "dataset.base.eval_batch_size"), whole(1)),
    **dict.fromkeys(("method.epochs", "method.check_val_every_n_epoch", "method.head.width"), whole(1)),
    "dataset.max_pixels": whole(1),
    "tuning.warmup_steps": whole(0),
    **dict.fromkeys(("method.head.dropout", "dataset.base.keep"), fraction),
    "method.val_check_interval": share,
    "trainer.gradient_clip_val": optional(number(0)),
    "trainer.max_steps": whole(-1),
    "precision": precision,
    "compile": also(flag, "cuda_graphs"),
    "optimizer.fused": optional(flag),
    "cache_gb": number(0, 10**6),
    "reuse.limit_gb": number(0),
    "save_minutes": optional(number(0)),
    **dict.fromkeys(("outputs", "run_dir"), path),
    **dict.fromkeys(("ckpt", "model", "backbone.weights"), optional(path)),
    **dict.fromkeys(("dataset.root", "dataset.eval_root", "dataset.eval_list"), optional(path)),
}

_ABSENT = object()


def typed(value: Any) -> str:
    """A value as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return shown(value)
