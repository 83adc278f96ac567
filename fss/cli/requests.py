"""What a command line of evaluate.py asks for: one evaluation or several, each with its own configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra import compose
from omegaconf import DictConfig, ListConfig, OmegaConf

from fss.cli import overrides, start
from fss.cli.declared import check_declared
from fss.cli.model_files import card_of_file, evaluated_with
from fss.cli.recorded import EVALUATIONS_OWN, recorded_overrides
from fss.data.cross_domain import base_class_names
from fss.data.folds import FOLDS
from fss.evaluation.results import CHECKPOINTS, RECORD, SETTINGS
from fss.files.plain import read_yaml
from fss.models.card import ModelCard

# The recipe whose networks are those of runs from before there were recipes.
BEFORE_RECIPES = "recipe=bam"
# Settings of the evaluated pictures: another value makes other results, which are kept beside the usual ones.
PICTURES = (
    *("eval_list", "eval_set", "eval_root", "year", "crowd", "fold_scheme", "query_classes", "min_pixels"),
    *("size", "geometry"),
)


class Request(NamedTuple):
    """One evaluation.

    Attributes:
        cfg: Its configuration, with what the run was trained with underneath.
        seen_classes: For a model of another data set, the names of its base classes.
        changed: What of the evaluated pictures and of the model is not as the run has it, as words for a folder's
            name.
        card: What the model file says of its weights, where one is evaluated.
    """

    cfg: DictConfig
    seen_classes: list[str] | None
    changed: Sequence[str] = ()
    card: ModelCard | None = None


def requests(cfg: DictConfig, typed: Sequence[str]) -> list[Request]:
    """The evaluations of a command line: each fold of `fold=all`, each checkpoint of `checkpoint=both`.

    Args:
        cfg: As composed from the command line alone.
        typed: The overrides of the command line.

    Raises:
        ValueError: There is no such evaluation.
    """
    if cfg.method.stage == "base_learner":
        raise ValueError("a base learner is evaluated while it trains; evaluate what stands on it: method=bam")
    if cfg.model is not None:
        return [_of_file(Path(cfg.model), typed)]
    folds, checkpoints = [""], [""]
    if cfg.fold == "all":
        scheme = cfg.dataset.fold_scheme
        folds = [f"fold={f}" for f in range(len(scheme) if isinstance(scheme, ListConfig) else FOLDS)]
    if cfg.checkpoint == "both":
        checkpoints = ["checkpoint=last", "checkpoint=best"]
    return [_recalled([*typed, *filter(None, (c, f))]) for c in checkpoints for f in folds]


def _recalled(typed: Sequence[str]) -> Request:
    """The configuration of an evaluation.

    A run's own overrides (`method.head.width=64`) need not be typed again: they are taken from the run folder,
    and what is typed now goes over them. A model of another data set keeps what that set's recipe made of it.
    """
    cfg = compose("evaluate", overrides.merged(typed))
    folder = str(cfg.run_dir)
    saved = _recorded(Path(folder)) if cfg.ckpt is None else []
    if any(overrides.setting(o) == "protocol" for o in typed):
        saved = overrides.without(saved, "episodes", "seeds", "protocol")
    if cfg.trained_on == cfg.dataset.name:
        cfg = compose("evaluate", overrides.merged(saved, typed)) if saved else cfg
        cfg.run_dir = folder  # whatever the record would make of it
        changed = _changed(cfg, saved, typed, Path(folder) / SETTINGS)
        return Request(cfg, None, [*changed, *_changed_parts(cfg, saved, typed)])
    own, data = overrides.without(typed, "dataset"), overrides.only(typed, "dataset")
    model = compose("evaluate", overrides.merged(saved, own, [f"dataset={cfg.trained_on}"]))
    seen: list[str] = []  # where every class is novel, none has been trained on, whatever the training data
    if cfg.dataset.fold_scheme != "all_novel":
        seen = base_class_names(cfg.trained_on, cfg.fold, model.dataset.fold_scheme)
    saved = overrides.without(saved, "dataset")
    cfg = compose("evaluate", overrides.merged(saved, own, data))
    cfg.method = OmegaConf.to_container(model.method, resolve=True)
    cfg.run_dir = folder
    on_own = [*own, f"dataset={cfg.trained_on}"]
    return Request(cfg, seen, [*_changed(cfg, saved, typed), *_changed_parts(cfg, saved, on_own)])


def run_settings(run: Path) -> DictConfig:
    """The configuration of a run, from its folder.

    Raises:
        FileNotFoundError: It says nothing of its settings.
        ValueError: What it says is no run of this program, or of a type that nothing is built from.
    """
    if not (run / RECORD).is_file():
        raise FileNotFoundError(f"no {run / RECORD}: give the folder of a run, the one that holds {CHECKPOINTS}/")
    cfg = compose("evaluate", overrides.merged(_recorded(run)))
    cfg.run_dir = str(run)
    check_recorded(cfg, run)
    return cfg


def check_recorded(cfg: DictConfig, run: Path) -> None:
    """Raises ValueError if what a run's record says is of a type that nothing is built from; the file is named."""
    try:
        check_declared(cfg)
    except ValueError as error:
        raise ValueError(f"{run / RECORD}: {error}") from error


def _of_file(file: Path, typed: Sequence[str]) -> Request:
    """The configuration of an evaluation of a model file: as its run's, on the pictures that are typed."""
    card = card_of_file(file)
    usual = evaluated_with(card, file, typed)
    own_set = compose("evaluate", overrides.merged(usual, typed)).dataset.name == card.training["dataset"]
    if not own_set:
        usual = overrides.without(usual, "dataset.fold_scheme")
    cfg = compose("evaluate", overrides.merged(usual, typed))
    for part in ("method", "backbone", "tuning"):
        cfg[part].name = card.training[part]
    return Request(cfg, None if own_set else list(card.classes), _changed(cfg, usual, typed), card)


def _changed(
    cfg: DictConfig, saved: Sequence[str], typed: Sequence[str], settings: Path | None = None
) -> list[str]:
    """Words such as "size-321" for each setting of the evaluated pictures that is typed and not the run's own.

    The run's own are in its `settings`, or what is composed without those that are typed.
    """
    names = [f"dataset.{name}" for name in PICTURES]
    if not overrides.only(typed, *names):
        return []
    if settings is not None and settings.is_file():
        usual = _noted(settings).get("dataset")
        if not isinstance(usual, dict):
            raise ValueError(f"{settings} holds no settings of a run: delete it")
    else:
        usual = compose("evaluate", overrides.merged(saved, overrides.without(typed, *names))).dataset
    pairs = [(name, cfg.dataset.get(name)) for name in PICTURES if cfg.dataset.get(name) != usual.get(name)]
    return [f"{name}-{_word(value)}" for name, value in pairs]


def _changed_parts(cfg: DictConfig, saved: Sequence[str], typed: Sequence[str]) -> list[str]:
    """Words such as "refine-2" for each argument of head or backbone that is typed and not the run's own.

    It makes other answers from the same weights, without a checkpoint that refuses it.
    """
    others = [o for o in typed if not overrides.setting(o).startswith(("method.", "backbone."))]
    if cfg.ckpt is not None or len(others) == len(typed):  # of a file, it is what makes its weights fit
        return []
    usual = compose("evaluate", overrides.merged(saved, others))
    parts = (cfg.method.head, usual.method.head), (cfg.backbone.network, usual.backbone.network)
    return [
        f"{name}-{_word(now[name])}"
        for now, then in parts
        for name in now
        if name != "weights" and now[name] != then.get(name)
    ]


def _word(value: object) -> str:
    """A value as part of a folder's name; a file's is its stem."""
    text = Path(value).stem if isinstance(value, str) else str(value)
    return re.sub(r"[^\w.+]+", "_", text, flags=re.ASCII).strip("_") or "other"


def _recorded(run: Path) -> list[str]:
    """What a run was trained with, in today's words."""
    saved = recorded_overrides(run)
    settings = run / SETTINGS
    if settings.is_file() and "recipe" not in _noted(settings):
        return [BEFORE_RECIPES, *saved]
    return saved


def _noted(settings: Path) -> dict[str, Any]:
    """What a run's config.yaml says."""
    noted = read_yaml(settings)
    if not isinstance(noted, dict):
        raise ValueError(f"{settings} holds no settings of a run: delete it")
    return noted


def find_checkpoint(cfg: DictConfig, typed: Sequence[str]) -> Path | None:
    """The checkpoint to evaluate; None for a method that trains nothing.

    Args:
        cfg: Of a request.
        typed: The overrides of the command line, for the message.

    Raises:
        FileNotFoundError: There is none; the message says the command that makes it.
        ValueError: `checkpoint` is neither last nor best.
    """
    if cfg.model is not None:
        return Path(cfg.model)
    if cfg.ckpt is not None:
        if not Path(cfg.ckpt).is_file():
            raise FileNotFoundError(f"ckpt={cfg.ckpt}: no such file; give a checkpoint, ours or a published one")
        return Path(cfg.ckpt)
    if not cfg.method.trained:
        return None
    if cfg.checkpoint not in ("last", "best"):
        raise ValueError(f"checkpoint={cfg.checkpoint}: must be last, best or both")
    path = Path(cfg.run_dir) / CHECKPOINTS / f"{cfg.checkpoint}.ckpt"
    if not path.is_file():
        command = shlex.join(["python", "train.py", *start.config_dir(), *_for_training(cfg, typed)])
        raise FileNotFoundError(
            f"no checkpoint {path}: train it first ({command}), name a file with ckpt=FILE or, for a run of "
            "another shot, give that shot with train_shot=K"
        )
    return path


def _for_training(cfg: DictConfig, typed: Sequence[str]) -> list[str]:
    """What is typed to train the run that an evaluation lacks, from what was typed for the evaluation."""
    unknown = set(compose("evaluate")) - set(compose("train"))
    kept = overrides.without(typed, *unknown, *EVALUATIONS_OWN, "protocol", "episodes", "seeds", "reuse")
    if overrides.only(typed, "fold"):
        kept = [*overrides.without(kept, "fold"), f"fold={cfg.fold}"]  # one of fold=all
    if overrides.only(typed, "train_shot"):
        kept = [*overrides.without(kept, "shot"), f"shot={cfg.train_shot}"]
    if overrides.only(typed, "trained_on"):
        kept = [*overrides.without(kept, "dataset"), f"dataset={cfg.trained_on}"]
    return kept
